"""What stands on recordings: replay, explanation of one trigger, recording without a run, raw samples."""
