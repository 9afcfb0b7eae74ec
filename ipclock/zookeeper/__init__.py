"""A pool of several hosts, on ZooKeeper servers."""
