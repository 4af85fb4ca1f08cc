"""Augmentation of records: picture and places move together, differently in every epoch."""
