"""The KMS side of key delivery: opens envelopes, keeps keys sealed, answers to notices, hands keys over."""
