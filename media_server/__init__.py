"""The RTC plane, the process, and the composition root."""
