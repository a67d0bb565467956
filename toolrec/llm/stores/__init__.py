"""Replies that are kept: the response cache, and recordings to replay."""
