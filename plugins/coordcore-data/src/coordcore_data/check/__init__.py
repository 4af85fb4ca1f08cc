"""Records looked over for wrong conventions. `result` holds the one call, `suspicions` what is looked for."""
