// Package metrics exports what a gateway does to Prometheus.
//
// A service that has a registry registers a collector:
//
//	prometheus.MustRegister(metrics.New(gateway, nil))
//
// and one that has none mounts a [Handler]:
//
//	mux.Handle("/metrics", metrics.Handler(gateway, nil))
//
// A service that has a bus or a hub and no gateway registers collectors of these:
//
//	prometheus.MustRegister(metrics.Bus(redis), metrics.Hub(rooms))
//
// Make the collector before the gateway serves: it counts what begins from then on. No other
// package of Limpet imports Prometheus' client.
//
// The files grafana.json and alerts.yml beside this one are a dashboard for Grafana and rules
// for alerts. They are tested against the metrics below.
//
// # Metrics
//
// The label backend has the ID of a backend in the pool. In limpet_requests_total it is
// empty where no backend has answered; elsewhere such a request counts for the backend that
// was tried last. It is also empty for what ends at a backend after it has left the pool. A
// backend that leaves takes its series along, so that sums over all backends become smaller. No label has a value that a client chooses.
//
// Requests are counted when they end, and those that become tunnels when they do so.
//
//	limpet_requests_total{backend,source,code}   source: backend, affinity (its own answer to a
//	                                             session whose node is gone), gateway (an error),
//	                                             none (the client left before); code: 1xx to 5xx
//	limpet_request_duration_seconds{backend}     histogram, to the last byte of the answer
//	limpet_request_first_byte_seconds{backend}   histogram, to the header of the answer
//	limpet_requests_in_flight{backend}           now, without tunnels
//	limpet_queued{backend}                       that wait for room: see balancer.Limit
//	limpet_backend_full_total{backend}           that found none there, or not in time
//	limpet_received_bytes_total{backend}         of requests' bodies
//	limpet_sent_bytes_total{backend}             of backends' answers' bodies
//	limpet_aborts_total{backend,by}              by: client, backend
//	limpet_gateway_answers_total{cause}          cause: full, no_backend, shutdown, home_gone, backend_lost,
//	                                             timeout, backend_failed, body_too_large, bad_request,
//	                                             internal
//	limpet_pins_total{backend,outcome}           outcome: hit, new, moved, expired, forged, unknown, as
//	                                             [limpet.Options].PinHeader has them
//	limpet_unknown_sessions_total{backend}       that reached a backend which never had the session
//
// The sum of limpet_requests_total is that of all requests, unless a backend has left. Those with the source none are the
// only ones that got no answer.
//
// Tunnels:
//
//	limpet_tunnels{backend}                      open now: opened less closed
//	limpet_tunnels_opened_total{backend}
//	limpet_tunnels_closed_total{backend,side,code}  side: client, backend, gateway; code: of the first
//	                                             close frame, 3xxx and 4xxx for those of applications,
//	                                             none without a frame
//	limpet_tunnel_duration_seconds               histogram
//	limpet_tunnel_bytes_total{backend,direction}    direction: to_client, to_backend; when a tunnel ends
//	limpet_tunnel_messages_total{backend,direction}
//
// Backends:
//
//	limpet_backend_state{backend,state}          1 for the one that holds: up, draining, down
//	limpet_backend_health{backend,health}        likewise: well, sick, dead
//	limpet_backend_wish{backend,wish}            likewise: serve, drain, off
//	limpet_backend_changes_total{backend,to}     of its state
//	limpet_backend_weight{backend}
//	limpet_backend_checked_timestamp_seconds{backend}  the last check of its health, if there was one
//	limpet_backend_check_duration_seconds{backend}
//	limpet_backend_failures_total{backend,cause} attempts; cause: connect, timeout, lost, broken
//	limpet_retries_total{backend}                attempts that followed a failure at this backend
//	limpet_redispatches_total{backend}           of these, at another backend
//	limpet_drain_left{backend}                   requests and tunnels, only while it is drained or off
//	limpet_drain_end_timestamp_seconds{backend}  only if the drain has a deadline
//
// The gateway and its parts, where there are some (see [Options]):
//
//	limpet_replicas                              other gateways that were heard over the bus lately
//	limpet_rebalance_moved_total                 with Options.Rebalance: clients that were moved
//	limpet_rebalance_left                        and those that all gateways have yet to move
//	limpet_findings_total{code}                  mistakes in the set-up, see [limpet.Finding]
//	limpet_refused_total{limit}                  by Limit: connections, rate, tunnels, handshakes, headers;
//	                                             by Origin: origin, and origin-report of those that passed
//	limpet_limit_clients                         see [limpet.LimitStats]
//	limpet_store_memory_hits_total               see [affinity.RedisStats]
//	limpet_store_calls_total
//	limpet_store_errors_total
//	limpet_store_skipped_total
//	limpet_store_circuit_open
//	limpet_bus_published_total                   see [bus.Stats]
//	limpet_bus_publish_errors_total
//	limpet_bus_delivered_total
//	limpet_bus_gaps_total
//	limpet_bus_dropped_total
//	limpet_bus_closed_slow_total
//	limpet_bus_topics
//	limpet_bus_topics_away
//	limpet_bus_disconnects_total
//	limpet_bus_subscriptions
//	limpet_bus_queued                            messages, in the queues of all subscriptions
//	limpet_bus_longest_queue                     and in the longest one
//	limpet_bus_publish_duration_seconds          histogram
//	limpet_hub_members                           see [hub.Stats]
//	limpet_hub_rooms
//	limpet_hub_nodes
//	limpet_hub_sent_total
//	limpet_hub_received_total
//	limpet_hub_delivered_total
//	limpet_hub_dropped_total
//	limpet_hub_closed_slow_total
//	limpet_hub_gaps_total
//	limpet_hub_queued_bytes                      that wait for all members
//	limpet_hub_longest_queue_bytes               and for the one for whom most does
//
// # Latency
//
// The histograms have the answers of backends that say how fast the backends are. Left out
// are tunnels; answers that broke off; streams of server-sent events, which are the answers
// of the type text/event-stream; the long polls of Engine.IO, which are its GETs with a
// session's ID (transport=polling and sid in the query); and what [Options].Long names. All of
// them would only tell how long clients stay.
//
// Each of these histograms has classic buckets, from 1 ms to 10 s, and native ones, which a
// Prometheus that ingests native histograms prefers. That of the bus has classic ones, from
// 0.1 ms to 2.5 s.
//
// # Cost
//
// A request costs about 0.2 µs and no allocation in the collector, beside what it costs the
// gateway to record it: go test -bench . ./middleware/metrics
package metrics
