"""From stored records to padded batches."""
