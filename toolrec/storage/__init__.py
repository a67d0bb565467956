"""Object storage: folders at URLs that fsspec knows, copied to the node that reads them. Needs neither Ray nor torch."""
