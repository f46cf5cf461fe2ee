"""The test or the program is over before anybody judges."""
