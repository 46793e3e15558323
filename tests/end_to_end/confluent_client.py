"""Reads a topic as Confluent's Python client does, with schemas from the registry at a URL, and prints what it has found as JSON lines.

    confluent_client.py BOOTSTRAP_SERVERS REGISTRY_URL TOPIC

The last line holds what the registry says of the topic's subjects through the client's own calls.
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

servers, url, topic = sys.argv[1:]
registry = SchemaRegistryClient({"url": url})
deserialize = AvroDeserializer(registry)
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "confluent-client",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
)
partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
left = len(partitions)
while left:
    message = consumer.poll(30)
    if message is None:
        raise SystemExit("the broker is silent")
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            raise KafkaException(message.error())
        left -= 1
        continue
    key = deserialize(message.key(), SerializationContext(topic, MessageField.KEY))
    value = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    print(json.dumps({"key": key, "value": value}, default=str))
consumer.close()

subject = f"{topic}-value"
latest = registry.get_latest_version(subject)
again = registry.lookup_schema(subject, Schema(latest.schema.schema_str, "AVRO"))
print(
    json.dumps(
        {
            "subjects": sorted(name for name in registry.get_subjects() if name.startswith(topic)),
            "versions": registry.get_versions(subject),
            "latest": latest.version,
            "lookup": [again.version, again.schema_id] == [latest.version, latest.schema_id],
            "by_id": registry.get_schema(latest.schema_id).schema_str == latest.schema.schema_str,
            "level": registry.get_compatibility(),
            "compatible": registry.test_compatibility(subject, latest.schema),
            "incompatible": registry.test_compatibility(subject, Schema('"int"', "AVRO")),
        }
    )
)
