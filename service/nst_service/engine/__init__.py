"""Neural style transfer on tensors and encoded pictures. It uses no gRPC, protobuf, asyncio or threads."""
