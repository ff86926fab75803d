"""Training, data and evaluation; nothing else imports it."""
