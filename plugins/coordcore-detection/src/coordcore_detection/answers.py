"""The reader of answers under the name by which scripts have imported it: `coordcore.records.answers`."""

from coordcore.records.answers import Answer, AnswerObject, Unread, parse_answer

__all__ = ["Answer", "AnswerObject", "Unread", "parse_answer"]
