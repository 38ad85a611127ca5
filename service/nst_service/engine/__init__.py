"""Neural style transfer on tensors: no gRPC, no protobuf, no asyncio, no threads and no files of its own."""
