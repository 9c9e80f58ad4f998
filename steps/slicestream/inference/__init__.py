"""Prediction with an ONNX model on the CPU: numpy and the engine, nothing of training or DICOM."""
