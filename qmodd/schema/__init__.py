"""The MQTT face as data: channels, messages and commands as AsyncAPI 3.0 and JSON Schema, made from the models."""
