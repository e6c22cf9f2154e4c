"""Record bytes and the sealed shards that hold them."""
