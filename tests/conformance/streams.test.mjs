// The published suite as its README runs it within a project. Its command line finds no tests when it is installed
// as a package: the test runner leaves `node_modules` out.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({ baseUrl: process.env.STREAMS_URL, longPollTimeoutMs: 5_000, subscriptions: true })
