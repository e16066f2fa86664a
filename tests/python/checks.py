"""The checks of run.py: structured and encoded records, long polls, streams, push sessions, named errors.

usage: checks.py ADDRESS, with the generated stubs on PYTHONPATH
"""

import queue
import struct
import sys
import threading
import time

import grpc
from riverrun.v1 import admin_pb2, admin_pb2_grpc, common_pb2, fetch_pb2, fetch_pb2_grpc
from riverrun.v1 import produce_pb2, produce_pb2_grpc, push_pb2, push_pb2_grpc
from riverrun.v1 import subscription_pb2, subscription_pb2_grpc

# No call here may take longer, in seconds.
DEADLINE = 60
TOPIC = "python-stubs"


def check(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


class Broker:
    """The services of one broker, with a deadline on every call."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(timeout=DEADLINE)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)
        self.produce = produce_pb2_grpc.ProduceStub(self.channel)
        self.fetch = fetch_pb2_grpc.FetchStub(self.channel)
        self.push = push_pb2_grpc.PushStub(self.channel)
        self.subscriptions = subscription_pb2_grpc.SubscriptionsStub(self.channel)

    def append(self, partition, records, topic=TOPIC, **more):
        request = produce_pb2.AppendRequest(
            topic=topic, partition=partition, records=common_pb2.Records(records=records), **more
        )
        return self.produce.Append(request, timeout=DEADLINE)

    def read(self, partition, offset, wait_ms=0, max_records=0, encoded=False, topic=TOPIC):
        one = fetch_pb2.FetchPartition(topic=topic, partition=partition, offset=offset)
        form = fetch_pb2.RECORD_FORMAT_ENCODED if encoded else fetch_pb2.RECORD_FORMAT_STRUCTURED
        request = fetch_pb2.FetchRequest(
            partitions=[one], max_wait_ms=wait_ms, max_records=max_records, format=form
        )
        reply = self.fetch.Fetch(request, timeout=DEADLINE)
        check("partitions in a reply", len(reply.partitions), 1)
        found = reply.partitions[0]
        check("partition", (found.topic, found.partition), (topic, partition))
        return found


def record(value, key=None, timestamp_ms=0, headers=()):
    made = common_pb2.Record(timestamp_ms=timestamp_ms)
    if value is not None:
        made.value = value
    if key is not None:
        made.key = key
    for name, content in headers:
        header = made.headers.add(key=name)
        if content is not None:
            header.value = content
    return made


def seen(found):
    """A record as plain values; an absent field is None."""
    optional = lambda message, field: getattr(message, field) if message.HasField(field) else None
    headers = [(header.key, optional(header, "value")) for header in found.headers]
    return found.offset, optional(found, "key"), optional(found, "value"), headers


def refused(what, code, call):
    """Runs a call that must fail with this named error in its trailing metadata, and returns the error."""
    try:
        call()
    except grpc.RpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        if "riverrun-error-bin" not in trailing:
            raise AssertionError(f"{what}: no named error with {error.code()}: {error.details()}")
        named = common_pb2.Error.FromString(trailing["riverrun-error-bin"])
        got = common_pb2.ErrorCode.Name(named.code)
        check(f"{what} ({named.message})", got, "ERROR_CODE_" + code)
        if not named.message:
            raise AssertionError(f"{what}: the error has no message")
        return named
    raise AssertionError(f"{what}: was not refused")


def crc32c(data):
    """CRC-32C bit by bit: slow, short, and nobody else's code."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def topics(broker):
    config = admin_pb2.TopicConfig(retention_ms=3_600_000)
    request = admin_pb2.CreateTopicRequest(topic=TOPIC, partitions=2, config=config)
    created = broker.admin.CreateTopic(request, timeout=DEADLINE).topic
    check("name", created.topic, TOPIC)
    check("topic id", len(created.topic_id), 16)
    check("partitions", [p.partition for p in created.partitions], [0, 1])
    check("given setting", created.config.retention_ms, 3_600_000)
    check("default durability", created.config.durability, common_pb2.DURABILITY_FSYNC)
    refused("create twice", "TOPIC_EXISTS", lambda: broker.admin.CreateTopic(request, timeout=DEADLINE))
    bad = admin_pb2.CreateTopicRequest(topic="../x")
    refused("bad name", "INVALID_ARGUMENT", lambda: broker.admin.CreateTopic(bad, timeout=DEADLINE))
    metadata = broker.admin.GetMetadata(
        admin_pb2.GetMetadataRequest(topics=[TOPIC, "nowhere"]), timeout=DEADLINE
    )
    check("cluster id", len(metadata.cluster_id), 16)
    check("topics", [t.topic for t in metadata.topics], [TOPIC, "nowhere"])
    check("same id", metadata.topics[0].topic_id, created.topic_id)
    unknown = common_pb2.ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION
    check("unknown topic", metadata.topics[1].error.code, unknown)
    return created.topic_id


def structured_records(broker):
    before = int(time.time() * 1000)
    sent = [
        record(b"first", key=b"k", headers=[("trace", b"abc"), ("trace", b""), ("none", None)]),
        record(b"", key=b"", timestamp_ms=1_700_000_000_123),
        record(None, key=b"tombstone"),
        record("Grüße".encode()),
    ]
    receipt = broker.append(0, sent, request_id=77)
    check("echo", receipt.request_id, 77)
    check("offsets", (receipt.base_offset, receipt.end_offset), (0, 4))
    check("reached", receipt.reached, common_pb2.DURABILITY_FSYNC)
    check("duplicate", receipt.duplicate, False)
    found = broker.read(0, 0)
    check("error", found.HasField("error"), False)
    check("range", (found.log_start_offset, found.high_watermark, found.next_offset), (0, 4, 4))
    check("records", [seen(r) for r in found.records], [
        (0, b"k", b"first", [("trace", b"abc"), ("trace", b""), ("none", None)]),
        (1, b"", b"", []),
        (2, b"tombstone", None, []),
        (3, None, "Grüße".encode(), []),
    ])
    check("given time", found.records[1].timestamp_ms, 1_700_000_000_123)
    for index in (0, 2, 3):
        stamped = found.records[index].timestamp_ms
        if not before - 1000 <= stamped <= int(time.time() * 1000) + 1000:
            raise AssertionError(f"the broker's clock: {stamped} is not now")
    # A strict number of records, and from the middle of a batch.
    found = broker.read(0, 1, max_records=2)
    check("offsets of two", [r.offset for r in found.records], [1, 2])
    check("next", found.next_offset, 3)
    check("second append", broker.append(0, [record(b"fifth")]).base_offset, 4)
    check("rest", [r.offset for r in broker.read(0, 3).records], [3, 4])


def encoded_records(broker):
    batch = broker.read(0, 4, encoded=True).batches
    base, length, _, magic, crc = struct.unpack(">qiibI", batch[:21])
    check("base offset, length, magic", (base, length, magic), (4, len(batch) - 12, 2))
    check("checksum", crc32c(batch[21:]), crc)
    append = lambda data: broker.produce.Append(
        produce_pb2.AppendRequest(topic=TOPIC, partition=1, batch=data), timeout=DEADLINE
    )
    # What the broker encoded goes back in, to the other partition.
    check("again", append(batch).base_offset, 0)
    check("decoded", [seen(r) for r in broker.read(1, 0).records], [(0, None, b"fifth", [])])
    flipped = batch[:-1] + bytes([batch[-1] ^ 1])
    refused("flipped bit", "CORRUPT_BATCH", lambda: append(flipped))
    refused("cut batch", "CORRUPT_BATCH", lambda: append(batch[:-1]))
    refused("two batches", "CORRUPT_BATCH", lambda: append(batch + batch))
    check("nothing was added", broker.read(1, 0).high_watermark, 1)


def polls(broker):
    end = broker.read(0, 0).high_watermark
    check("short poll at the end", list(broker.read(0, end).records), [])
    start = time.monotonic()
    found = broker.read(0, end, wait_ms=300)
    check("long poll that runs out", (list(found.records), found.next_offset), ([], end))
    waited = time.monotonic() - start
    if waited < 0.25:
        raise AssertionError(f"long poll ended after {waited:.3f} s")
    answers = queue.Queue()

    def wait():
        try:
            answers.put(broker.read(0, end, wait_ms=50_000))
        except BaseException as error:  # handed to the main thread
            answers.put(error)

    poll = threading.Thread(target=wait, daemon=True)
    poll.start()
    # Whether the poll waits already or comes later, it must bring this record and not run out.
    start = time.monotonic()
    check("append under a poll", broker.append(0, [record(b"wakes")]).base_offset, end)
    answer = answers.get(timeout=DEADLINE)
    poll.join()
    if isinstance(answer, BaseException):
        raise answer
    check("woken", [seen(r) for r in answer.records], [(end, None, b"wakes", [])])
    if time.monotonic() - start > 25:
        raise AssertionError("the long poll was not woken")


def watch(broker):
    end = broker.read(0, 0).high_watermark
    wanted = fetch_pb2.WatchPartition(topic=TOPIC, all_partitions=True)
    stream = broker.fetch.Watch(fetch_pb2.WatchRequest(partitions=[wanted]), timeout=DEADLINE)
    first = {p.partition: p.high_watermark for p in next(stream).partitions}
    check("watched", first, {0: end, 1: 1})
    broker.append(0, [record(b"seen")])
    moved = {p.partition: p.high_watermark for p in next(stream).partitions}
    check("moved", moved, {0: end + 1})
    stream.cancel()


def streams(broker):
    end = broker.read(1, 0).high_watermark
    request = lambda number, partition: produce_pb2.AppendRequest(
        request_id=number,
        topic=TOPIC,
        partition=partition,
        records=common_pb2.Records(records=[record(b"%d" % number)]),
    )
    requests = [request(1, 1), request(2, 9), request(3, 1)]
    answers = {}
    for reply in broker.produce.AppendPipeline(iter(requests), timeout=DEADLINE):
        answers.update({answer.request_id: answer for answer in reply.responses})
    check("answered", sorted(answers), [1, 2, 3])
    check("in order", (answers[1].base_offset, answers[3].base_offset), (end, end + 1))
    unknown = common_pb2.ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION
    check("one failed alone", answers[2].error.code, unknown)
    bulk = broker.produce.AppendBulk(iter([request(4, 1), request(5, 1)]), timeout=DEADLINE)
    check("bulk", (bulk.batch_count, bulk.record_count, bulk.HasField("error")), (2, 2, False))
    values = [r.value for r in broker.read(1, end).records]
    check("all there", values, [b"1", b"3", b"4", b"5"])


def lookups(broker):
    query = lambda **position: fetch_pb2.OffsetQuery(topic=TOPIC, partition=0, **position)
    queries = [
        query(earliest=True),
        query(latest=True),
        query(timestamp_ms=1_700_000_000_123),
        query(timestamp_ms=2**60),
        fetch_pb2.OffsetQuery(topic="nowhere", earliest=True),
    ]
    reply = broker.fetch.LookupOffsets(fetch_pb2.LookupOffsetsRequest(queries=queries), timeout=DEADLINE)
    end = broker.read(0, 0).high_watermark
    # Record 0 is younger than record 1 and so the first at or after that time.
    check("found", [answer.offset for answer in reply.answers[:4]], [0, end, 0, end])
    unknown = common_pb2.ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION
    check("unknown", reply.answers[4].error.code, unknown)


def refusals(broker, topic_id):
    unknown = "UNKNOWN_TOPIC_OR_PARTITION"
    refused("unknown topic", unknown, lambda: broker.append(0, [record(b"x")], topic="nowhere"))
    refused("unknown partition", unknown, lambda: broker.append(2, [record(b"x")]))
    refused("other topic id", "TOPIC_ID_MISMATCH", lambda: broker.append(0, [record(b"x")], topic_id=bytes(16)))
    broker.append(0, [record(b"right id")], topic_id=topic_id)
    refused("no records", "INVALID_ARGUMENT", lambda: broker.append(0, []))
    long_key = [record(b"x", key=bytes(65_537))]
    refused("long key", "INVALID_ARGUMENT", lambda: broker.append(0, long_key))
    large = [record(bytes(5 << 20))]
    refused("large record", "RECORD_TOO_LARGE", lambda: broker.append(0, large))
    end = broker.read(0, 0).high_watermark
    found = broker.read(0, end + 1)
    check("out of range", found.error.code, common_pb2.ERROR_CODE_OFFSET_OUT_OF_RANGE)
    check("its range", (found.error.range.start_offset, found.error.range.end_offset), (0, end))
    found = broker.read(7, 0)
    check("unknown to fetch", found.error.code, common_pb2.ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION)


class Session:
    """A push session: frames go out through a queue, frames come in one by one."""

    def __init__(self, broker, open_session):
        self.out = queue.Queue()
        self.say(open=open_session)
        self.replies = broker.push.Session(iter(self.out.get, None), timeout=DEADLINE)
        self.opened = self.next("opened")
        self.settle_id = 0

    def say(self, **frame):
        self.out.put(push_pb2.SessionRequest(**frame))

    def next(self, wanted):
        """The next frame of this kind; signs of life are passed over."""
        for reply in self.replies:
            kind = reply.WhichOneof("frame")
            if kind == "heartbeat":
                continue
            check("frame", kind, wanted)
            return getattr(reply, kind)
        raise AssertionError(f"the stream ended before {wanted}")

    def take(self, count):
        """Deliveries until they hold so many records, as (delivery, record)."""
        got = []
        while len(got) < count:
            delivery = self.next("deliver")
            got += [(delivery, found) for found in delivery.records]
        return got

    def settle(self, items):
        self.settle_id += 1
        self.say(settle=push_pb2.SettleFrame(settle_id=self.settle_id, items=items, sync=True))
        settled = self.next("settled")
        check("settle id", settled.settle_id, self.settle_id)
        return [push_pb2.SettleStatus.Name(result.status) for result in settled.results]


def item(delivery, found, **outcome):
    return push_pb2.SettleItem(
        topic=delivery.topic,
        partition=delivery.partition,
        start_offset=found.offset,
        end_offset=found.offset + 1,
        session_epoch=delivery.session_epoch,
        delivery_seq=delivery.delivery_seq,
        **outcome,
    )


def push_session(broker):
    topic, name = "python-push", "python-workers"
    broker.admin.CreateTopic(admin_pb2.CreateTopicRequest(topic=topic, partitions=1), timeout=DEADLINE)
    broker.append(0, [record(b"%d" % n) for n in range(4)], topic=topic)
    settings = push_pb2.SubscriptionSettings(max_failures=1)
    structured = fetch_pb2.RECORD_FORMAT_STRUCTURED
    session = Session(
        broker,
        push_pb2.OpenSession(
            subscription=name,
            session_id="python-1",
            format=structured,
            create=push_pb2.SubscriptionSpec(topics=[topic], settings=settings),
        ),
    )
    check("lease", session.opened.ack_wait_ms, 30_000)
    session.say(credit=push_pb2.Credit(messages_total=3, bytes_total=1 << 20))
    got = session.take(3)
    check("values", [found.value for _, found in got], [b"0", b"1", b"2"])
    statuses = session.settle(
        [
            item(*got[0], ack=push_pb2.Ack()),
            item(*got[1], nack=push_pb2.Nack(reason="poison")),
            item(*got[2], release=push_pb2.Release()),
            push_pb2.SettleItem(topic="nowhere", start_offset=1, end_offset=2, ack=push_pb2.Ack()),
        ]
    )
    ok, unknown = "SETTLE_STATUS_OK", "SETTLE_STATUS_UNKNOWN_PARTITION"
    check("settled", statuses, [ok, ok, ok, unknown])
    session.say(credit=push_pb2.Credit(messages_total=5, bytes_total=1 << 20))
    again = sorted(session.take(2), key=lambda one: one[1].offset)
    check("given back and the next", [found.value for _, found in again], [b"2", b"3"])
    counts = {count.offset: count.attempts for delivery, _ in again for count in delivery.counts}
    check("attempts", counts.get(again[0][1].offset), 2)
    check("acknowledged", session.settle([item(*one, ack=push_pb2.Ack()) for one in again]), [ok, ok])
    session.say(drain=push_pb2.DrainSession())
    check("end of a drained stream", list(session.replies), [])
    session.out.put(None)
    deadline = time.monotonic() + DEADLINE
    request = subscription_pb2.DescribeSubscriptionRequest(subscription=name)
    while time.monotonic() < deadline:
        lane = broker.subscriptions.DescribeSubscription(request, timeout=DEADLINE).partitions[0]
        if lane.dead == 1:
            break
    check("dead letters, lag", (lane.dead, lane.lag), (1, 0))
    check("dead letter", broker.read(0, 0, topic=name + ".dead").records[0].value, b"1")
    ask = push_pb2.ReceiveRequest(subscription=name, session_id="python-2", format=structured)
    check("nothing left", len(broker.push.Receive(ask, timeout=DEADLINE).deliveries), 0)
    broker.append(0, [record(b"asked for")], topic=topic)
    ask.max_wait_ms = 30_000
    reply = broker.push.Receive(ask, timeout=DEADLINE)
    delivery = reply.deliveries[0]
    check("received", delivery.records[0].value, b"asked for")
    settle = push_pb2.SettleRequest(
        subscription=name,
        session_id=reply.session_id,
        items=[item(delivery, delivery.records[0], ack=push_pb2.Ack())],
        sync=True,
    )
    results = broker.push.Settle(settle, timeout=DEADLINE).results
    check("settled by a call", [push_pb2.SettleStatus.Name(one.status) for one in results], [ok])
    lost = push_pb2.OpenSession(subscription="nowhere", session_id="x")
    refused("unknown subscription", "UNKNOWN_SUBSCRIPTION", lambda: Session(broker, lost))


def deletion(broker):
    broker.admin.DeleteTopic(admin_pb2.DeleteTopicRequest(topic=TOPIC), timeout=DEADLINE)
    refused("deleted", "UNKNOWN_TOPIC_OR_PARTITION", lambda: broker.append(0, [record(b"x")]))


def main():
    broker = Broker(sys.argv[1])
    topic_id = topics(broker)
    structured_records(broker)
    encoded_records(broker)
    polls(broker)
    watch(broker)
    streams(broker)
    lookups(broker)
    refusals(broker, topic_id)
    push_session(broker)
    deletion(broker)
    print("PASSED")


if __name__ == "__main__":
    main()
