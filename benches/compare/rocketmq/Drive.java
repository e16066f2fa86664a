import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.message.MessageRequestMode;

/**
 * The client side of one measurement of Apache RocketMQ, with its own client for the JVM.
 *
 * <p>It does what the drivers in {@code src/drive} do: the job comes as JSON in the argument, the figures go as JSON to the
 * standard output, with the same names. A record that does not come back whole, once and (but for the queue) in order is a failure.
 */
public final class Drive {
    /** Bytes of a batch. */
    private static final int BATCH = 1 << 20;
    /** Batches without an acknowledgement at most: 32 MiB. */
    private static final int BATCHES = 32;
    /** Single records without an acknowledgement at most. */
    private static final int SINGLES = 10_000;
    /** Records in hand at most while each is acknowledged by itself. */
    private static final int IN_HAND = 1000;
    /** Consumers that each read everything. */
    private static final int FAN_OUT = 10;
    /** Groups of waiting consumers that share a connection. */
    private static final int CONNECTIONS = 100;
    private static final String BROKER = "compare";
    private static final long SECOND = 1_000_000_000L;
    private static final long TIMEOUT_MILLIS = 60_000;

    private final String address;
    private final String topic;
    private final List<Integer> servers;
    private final int bytes;
    private final long warmUp;
    private final long records;
    private final Map<String, Double> figures = new TreeMap<>();
    private final AtomicReference<String> failure = new AtomicReference<>();

    private Drive(JSONObject job) {
        address = job.getString("address");
        topic = job.getString("topic");
        servers = job.getJSONArray("servers").toList(Integer.class);
        bytes = job.getIntValue("bytes");
        warmUp = job.getLongValue("warm_up");
        records = job.getLongValue("records");
    }

    public static void main(String[] words) {
        // Libraries say things on the standard output, which is for the figures alone.
        PrintStream outcome = System.out;
        System.setOut(System.err);
        int status = 1;
        try {
            JSONObject job = JSON.parseObject(words[0]);
            Drive drive = new Drive(job);
            drive.work(job.get("task"));
            outcome.println(JSON.toJSONString(drive.figures));
            outcome.flush();
            status = 0;
        } catch (Throwable error) {
            System.err.println(error);
        }
        // What the client left running must not hold the process.
        Runtime.getRuntime().halt(status);
    }

    private void work(Object task) throws Exception {
        if (task instanceof JSONObject with) {
            if (with.containsKey("Latency")) {
                latency(with.getJSONObject("Latency").getLongValue("rate"));
            } else {
                idle(with.getJSONObject("Idle"));
            }
            return;
        }
        switch ((String) task) {
            case "Produce" -> produce();
            case "Consume" -> consume();
            case "Acknowledge" -> acknowledge();
            case "FanOut" -> fanOut();
            case "FirstRecord" -> firstRecord();
            case "Count" -> count();
            default -> throw new IllegalArgumentException("no task " + task);
        }
    }

    private void produce() throws Exception {
        Sender sender = new Sender(makeTopic(topic));
        Payloads payloads = new Payloads(bytes);
        for (long sent = 0; sent < warmUp; sent++) {
            sender.gather(payloads.next());
        }
        sender.flush();
        Meter meter = new Meter(servers);
        for (long sent = 0; sent < records; sent++) {
            sender.gather(payloads.next());
        }
        sender.flush();
        meter.moved(records);
    }

    private void consume() throws Exception {
        Meter meter = new Meter(servers);
        read(receiver(topic, "read"), warmUp + records);
        meter.moved(warmUp + records);
    }

    /** Reads and checks so many records from the start of the topic. */
    private void read(DefaultLitePullConsumer consumer, long wanted) throws Exception {
        Checker checker = new Checker();
        while (checker.records < wanted) {
            for (MessageExt message : consumer.poll()) {
                checker.take(message.getBody());
            }
        }
    }

    /** Records are due at a steady rate; one that is late counts from when it was due. */
    private void latency(long rate) throws Exception {
        MessageQueue queue = makeTopic(topic);
        DefaultLitePullConsumer consumer = receiver(topic, "read");
        Sender sender = new Sender(queue);
        long all = warmUp + records;
        Meter meter = new Meter(servers);
        long[] late = new long[Math.toIntExact(all)];
        Future<?> sending = Executors.newSingleThreadExecutor().submit(() -> {
            Payloads payloads = new Payloads(bytes);
            long start = System.nanoTime() + SECOND / 20;
            for (int index = 0; index < all; index++) {
                long due = start + index * (SECOND / rate);
                for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
                    LockSupport.parkNanos(left);
                }
                late[index] = System.nanoTime() - due;
                byte[] payload = payloads.next();
                number(payload).putLong(8, due);
                sender.send(payload);
            }
            sender.flush();
            return null;
        });
        long[] times = new long[Math.toIntExact(records)];
        Checker checker = new Checker();
        while (checker.records < all) {
            for (MessageExt message : consumer.poll()) {
                checker.take(message.getBody());
                long place = checker.records - 1 - warmUp;
                if (place >= 0) {
                    times[(int) place] = System.nanoTime() - number(message.getBody()).getLong(8);
                }
            }
        }
        join(sending);
        meter.moved(all);
        Arrays.sort(times);
        Arrays.sort(late);
        figures.put("p50_us", quantile(times, 0.5));
        figures.put("p99_us", quantile(times, 0.99));
        figures.put("p999_us", quantile(times, 0.999));
        figures.put("max_us", quantile(times, 1.0));
        figures.put("sent_late_p99_us", quantile(late, 0.99));
    }

    private static double quantile(long[] sorted, double part) {
        int place = (int) Math.ceil(part * sorted.length) - 1;
        return sorted[Math.max(place, 0)] / 1e3;
    }

    /** A push consumer in pop mode: the broker hands out records, and takes the acknowledgement of each. */
    private void acknowledge() throws Exception {
        Sender sender = new Sender(makeTopic(topic));
        Payloads payloads = new Payloads(bytes);
        for (long sent = 0; sent < records; sent++) {
            sender.gather(payloads.next());
        }
        sender.flush();
        String group = "queue-" + topic;
        MQClientInstance client = sender.producer.getDefaultMQProducerImpl().getMqClientFactory();
        String broker = client.findBrokerAddressInPublish(BROKER);
        client.getMQClientAPIImpl().setMessageRequestMode(broker, topic, group, MessageRequestMode.POP, -1, TIMEOUT_MILLIS);
        BitSet seen = new BitSet(Math.toIntExact(records));
        long[] came = new long[2];
        CountDownLatch all = new CountDownLatch(1);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(address);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setClientRebalance(false);
        consumer.setPopThresholdForQueue(IN_HAND);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            synchronized (seen) {
                for (MessageExt message : messages) {
                    int number = Math.toIntExact(number(message.getBody()).getLong(0));
                    came[1] += seen.get(number) ? 1 : 0;
                    came[0] += seen.get(number) ? 0 : 1;
                    seen.set(number);
                }
                if (came[0] >= records) {
                    all.countDown();
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        Meter meter = new Meter(servers);
        consumer.start();
        all.await();
        meter.moved(records);
        if (came[1] > 0) {
            throw new IllegalStateException("of " + records + " records " + came[1] + " came again");
        }
    }

    private void fanOut() throws Exception {
        Sender sender = new Sender(makeTopic(topic));
        ExecutorService readers = Executors.newCachedThreadPool();
        List<Future<?>> reading = new ArrayList<>();
        for (int number = 0; number < FAN_OUT; number++) {
            DefaultLitePullConsumer consumer = receiver(topic, "fan-" + number);
            reading.add(readers.submit(() -> {
                read(consumer, records);
                return null;
            }));
        }
        Meter meter = new Meter(servers);
        Payloads payloads = new Payloads(bytes);
        for (long sent = 0; sent < records; sent++) {
            sender.gather(payloads.next());
        }
        sender.flush();
        for (Future<?> one : reading) {
            join(one);
        }
        meter.moved(records * FAN_OUT);
    }

    private void idle(JSONObject how) throws Exception {
        rest(how, "at_rest");
        long topics = how.getLongValue("topics");
        Payloads payloads = new Payloads(bytes);
        Sender sender = new Sender(null);
        for (long number = 0; number < topics; number++) {
            sender.queue = makeTopic(topic + "-" + number);
            sender.send(payloads.next());
            sender.flush();
        }
        figures.put("topics", (double) topics);
        rest(how, "with_topics");
        makeTopic(topic);
        List<DefaultLitePullConsumer> waiting = new ArrayList<>();
        for (long number = 0; number < records; number++) {
            waiting.add(receiver(topic, "wait-" + number));
        }
        rest(how, "with_waiters");
        for (DefaultLitePullConsumer consumer : waiting) {
            if (!consumer.isRunning() || !consumer.poll(0).isEmpty()) {
                throw new IllegalStateException("a consumer did not wait");
            }
        }
        double grown = figures.get("mib_with_waiters") - figures.get("mib_with_topics");
        figures.put("waiters", (double) records);
        figures.put("kib_per_waiter", Math.max(grown * 1024 / records, 0));
    }

    /** Lets the server come to rest, and notes its memory and processor. */
    private void rest(JSONObject how, String state) throws Exception {
        Thread.sleep(how.getLongValue("settle_ms"));
        Meter meter = new Meter(servers);
        Thread.sleep(how.getLongValue("window_ms"));
        double wall = meter.wall();
        double server = meter.server();
        figures.put("mib_" + state, status(servers, "VmRSS:") / 1024);
        figures.put("core_percent_" + state, server / wall * 100);
    }

    private void firstRecord() throws Exception {
        while (true) {
            DefaultLitePullConsumer consumer = null;
            try {
                consumer = receiver(topic, "first");
                for (long start = System.nanoTime(); System.nanoTime() - start < 2 * SECOND; ) {
                    if (!consumer.poll(100).isEmpty()) {
                        figures.put("first_record_at", (double) System.nanoTime());
                        return;
                    }
                }
            } catch (Exception notYet) {
                Thread.sleep(1);
            }
            if (consumer != null) {
                consumer.shutdown();
            }
        }
    }

    private void count() throws Exception {
        DefaultLitePullConsumer consumer = receiver(topic, "count");
        Checker checker = new Checker();
        long heard = System.nanoTime();
        while (checker.records < records && System.nanoTime() - heard < 10 * SECOND) {
            for (MessageExt message : consumer.poll()) {
                checker.take(message.getBody());
                heard = System.nanoTime();
            }
        }
        figures.put("records", (double) records);
        figures.put("found", (double) checker.records);
        figures.put("lost", (double) (records - checker.records));
    }

    private static void join(Future<?> one) throws Exception {
        try {
            one.get();
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        }
    }

    private static ByteBuffer number(byte[] payload) {
        return ByteBuffer.wrap(payload).order(ByteOrder.LITTLE_ENDIAN);
    }

    private DefaultMQProducer admin;

    /** Makes a topic of one queue; waits for a broker to be there. */
    private MessageQueue makeTopic(String name) throws Exception {
        if (admin == null) {
            admin = new DefaultMQProducer("admin");
            admin.setNamesrvAddr(address);
            admin.start();
        }
        MQClientInstance client = admin.getDefaultMQProducerImpl().getMqClientFactory();
        String broker = null;
        for (long start = System.nanoTime(); broker == null && System.nanoTime() - start < 60 * SECOND; ) {
            try {
                client.updateTopicRouteInfoFromNameServer("SELF_TEST_TOPIC");
                broker = client.findBrokerAddressInPublish(BROKER);
            } catch (Exception notYet) {
                broker = null;
            }
            if (broker == null) {
                Thread.sleep(20);
            }
        }
        client.getMQClientAPIImpl().createTopic(broker, "TBW102", new TopicConfig(name, 1, 1), TIMEOUT_MILLIS);
        while (!client.updateTopicRouteInfoFromNameServer(name) && admin.fetchPublishMessageQueues(name).isEmpty()) {
            Thread.sleep(5);
        }
        return new MessageQueue(name, BROKER, 0);
    }

    private DefaultLitePullConsumer receiver(String of, String group) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group + "-" + of);
        consumer.setNamesrvAddr(address);
        consumer.setInstanceName("reader-" + Math.floorMod(group.hashCode(), CONNECTIONS));
        consumer.setAutoCommit(false);
        consumer.setPullThreadNums(1);
        consumer.setPullBatchSize(1024);
        consumer.setPullThresholdForQueue(20_000);
        consumer.setPollTimeoutMillis(1000);
        consumer.start();
        MessageQueue queue = new MessageQueue(of, BROKER, 0);
        try {
            if (consumer.fetchMessageQueues(of).isEmpty()) {
                throw new IllegalStateException("no route to " + of);
            }
            consumer.assign(List.of(queue));
            consumer.seekToBegin(queue);
        } catch (Exception error) {
            consumer.shutdown();
            throw error;
        }
        return consumer;
    }

    /** Sends to one queue, in order: one thread begins all calls. */
    private final class Sender {
        private final DefaultMQProducer producer = new DefaultMQProducer("writer");
        private final Semaphore batches = new Semaphore(BATCHES);
        private final Semaphore singles = new Semaphore(SINGLES);
        private MessageQueue queue;
        private List<Message> gathered = new ArrayList<>();
        private int held;

        Sender(MessageQueue queue) throws Exception {
            this.queue = queue;
            producer.setNamesrvAddr(address);
            producer.setInstanceName("writer");
            producer.setMaxMessageSize(4 << 20);
            producer.setCompressMsgBodyOverHowmuch(8 << 20);
            producer.setRetryTimesWhenSendAsyncFailed(0);
            producer.setSendMsgTimeout((int) TIMEOUT_MILLIS);
            producer.setAsyncSenderExecutor(Executors.newSingleThreadExecutor());
            producer.start();
        }

        void gather(byte[] payload) throws Exception {
            gathered.add(new Message(queue.getTopic(), payload));
            held += payload.length;
            if (held >= BATCH) {
                post();
            }
        }

        private void post() throws Exception {
            if (gathered.isEmpty()) {
                return;
            }
            check();
            batches.acquire();
            Collection<Message> batch = gathered;
            gathered = new ArrayList<>(batch.size());
            held = 0;
            producer.send(batch, queue, new Done(batches), TIMEOUT_MILLIS);
        }

        void send(byte[] payload) throws Exception {
            check();
            singles.acquire();
            producer.send(new Message(queue.getTopic(), payload), queue, new Done(singles), TIMEOUT_MILLIS);
        }

        void flush() throws Exception {
            post();
            batches.acquire(BATCHES);
            batches.release(BATCHES);
            singles.acquire(SINGLES);
            singles.release(SINGLES);
            check();
        }

        private void check() {
            if (failure.get() != null) {
                throw new IllegalStateException(failure.get());
            }
        }
    }

    /** What was sent is acknowledged, or the measurement has failed. */
    private final class Done implements SendCallback {
        private final Semaphore room;

        Done(Semaphore room) {
            this.room = room;
        }

        @Override
        public void onSuccess(SendResult result) {
            if (result.getSendStatus() != SendStatus.SEND_OK) {
                failure.compareAndSet(null, "a record was answered " + result.getSendStatus());
            }
            room.release();
        }

        @Override
        public void onException(Throwable error) {
            failure.compareAndSet(null, String.valueOf(error));
            room.release();
        }
    }

    /** Records that can be told apart: the first eight bytes are the number, the rest is random. */
    private static final class Payloads {
        private final byte[] pattern;
        private long next;

        Payloads(int bytes) {
            pattern = new byte[bytes];
            new Random(1).nextBytes(pattern);
        }

        byte[] next() {
            byte[] payload = pattern.clone();
            number(payload).putLong(0, next++);
            return payload;
        }
    }

    /** Checks that records come whole, in order, each once. */
    private final class Checker {
        private long records;

        void take(byte[] payload) {
            long number = number(payload).getLong(0);
            if (number != records || payload.length != bytes) {
                throw new IllegalStateException("record " + records + " of " + bytes + " bytes came as number " + number
                        + " with " + payload.length + " bytes");
            }
            records++;
        }
    }

    /** Time and processor time of both sides over a span. */
    private final class Meter {
        private final List<Integer> servers;
        private final long started;
        private final double client;
        private final double server;

        Meter(List<Integer> servers) {
            this.servers = servers;
            for (int pid : servers) {
                try {
                    Files.writeString(Path.of("/proc/" + pid + "/clear_refs"), "5");
                } catch (Exception notAllowed) {
                    // The peak is then that of the whole life, which is more, never less.
                }
            }
            client = own();
            server = processor(servers);
            started = System.nanoTime();
        }

        double wall() {
            return (System.nanoTime() - started) / 1e9;
        }

        double server() {
            return processor(servers) - server;
        }

        void moved(long records) {
            double wall = wall();
            double clientSeconds = own() - client;
            double serverSeconds = server();
            double gigabytes = records * (double) bytes / 1e9;
            figures.put("server_peak_mib", status(servers, "VmHWM:") / 1024);
            figures.put("server_anonymous_mib", status(servers, "RssAnon:") / 1024);
            figures.put("records", (double) records);
            figures.put("seconds", wall);
            figures.put("records_per_second", records / wall);
            figures.put("megabytes_per_second", gigabytes * 1e3 / wall);
            figures.put("client_cpu_seconds_per_gb", clientSeconds / gigabytes);
            figures.put("server_cpu_seconds_per_gb", serverSeconds / gigabytes);
            figures.put("server_cpu_us_per_record", serverSeconds * 1e6 / records);
        }
    }

    private static double own() {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime() / 1e9;
    }

    /** Processor time of the processes, in seconds. */
    private static double processor(List<Integer> pids) {
        double ticks = 0;
        for (int pid : pids) {
            try {
                String stat = Files.readString(Path.of("/proc/" + pid + "/stat"));
                String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
                ticks += Double.parseDouble(fields[11]) + Double.parseDouble(fields[12]);
            } catch (Exception ended) {
                // One that ended meanwhile counts nothing.
            }
        }
        return ticks / 100;
    }

    /** A figure of memory over the processes, in KiB. */
    private static double status(List<Integer> pids, String name) {
        double sum = 0;
        for (int pid : pids) {
            try {
                for (String line : Files.readAllLines(Path.of("/proc/" + pid + "/status"))) {
                    if (line.startsWith(name)) {
                        sum += Double.parseDouble(line.substring(name.length()).replace("kB", "").trim());
                    }
                }
            } catch (Exception ended) {
                // One that ended meanwhile counts nothing.
            }
        }
        return sum;
    }
}
