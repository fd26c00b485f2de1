package metrics

import "github.com/prometheus/client_golang/prometheus"

// A family is a metric with all its series.
type family struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

// A set is the metrics of a collector, apart from its histograms.
type set []family

func (s *set) add(kind prometheus.ValueType, name, help string, labels []string) family {
	f := family{prometheus.NewDesc("limpet_"+name, help, labels, nil), kind}
	*s = append(*s, f)
	return f
}

func (s *set) counter(name, help string, labels ...string) family {
	return s.add(prometheus.CounterValue, name, help, labels)
}

func (s *set) gauge(name, help string, labels ...string) family {
	return s.add(prometheus.GaugeValue, name, help, labels)
}

func (s set) describe(ch chan<- *prometheus.Desc) {
	for _, f := range s {
		ch <- f.Desc
	}
}

// families are the metrics of a gateway, apart from its histograms.
type families struct {
	set

	requests, inFlight, queued, full, received, sent, aborts, ownAnswers, pins, unknown family
	failures, retries, redispatches                                                     family
	open, opened, closedTunnels, tunnelBytes, tunnelMessages                            family
	state, health, wish, weight, changes                                                family
	drainLeft, drainEnd, checked, checkTook                                             family
	replicas, findings, refused, limited                                                family
	moved, toMove                                                                       family

	storeMemory, storeCalls, storeErrors, storeSkipped, storeOpen family
}

func newFamilies() *families {
	f := &families{}
	counter, gauge := f.counter, f.gauge

	f.requests = counter("requests_total", "Requests that have ended or become tunnels, by the class of their status and by who has answered. Source none: the client left before there was an answer.", "backend", "source", "code")
	f.inFlight = gauge("requests_in_flight", "Requests at the backend now, without tunnels, from all gateways of this process.", "backend")
	f.queued = gauge("queued", "Requests and handshakes that wait for room at the backend, by the Limit of its pool.", "backend")
	f.full = counter("backend_full_total", "Requests and handshakes for which there was no room at the backend, in its queue or within the time that they may wait.", "backend")
	f.received = counter("received_bytes_total", "Bytes of the bodies of requests that came from clients.", "backend")
	f.sent = counter("sent_bytes_total", "Bytes of the bodies of backends' answers that went to clients.", "backend")
	f.aborts = counter("aborts_total", "Requests whose client left before it had all of the answer, and answers that the backend broke off.", "backend", "by")
	f.ownAnswers = counter("gateway_answers_total", "Errors with which the gateway has answered itself.", "cause")
	f.pins = counter("pins_total", "What became of the clients' pins, by the backend that has answered.", "backend", "outcome")
	f.unknown = counter("unknown_sessions_total", "Requests of Engine.IO that reached a backend which never had their session.", "backend")

	f.failures = counter("backend_failures_total", "Attempts at the backend that failed: connect, no connection was made; timeout; lost, health found it Down meanwhile; broken, the connection broke.", "backend", "cause")
	f.retries = counter("retries_total", "Requests that were sent again after an attempt at this backend had failed.", "backend")
	f.redispatches = counter("redispatches_total", "Of the retries, those that went to another backend.", "backend")

	f.open = gauge("tunnels", "Tunnels that are open now.", "backend")
	f.opened = counter("tunnels_opened_total", "Tunnels that were opened.", "backend")
	f.closedTunnels = counter("tunnels_closed_total", "Tunnels that have ended, by the side that ended them and the code of the first close frame, none without a frame.", "backend", "side", "code")
	f.tunnelBytes = counter("tunnel_bytes_total", "Bytes that passed in tunnels, counted when a tunnel ends.", "backend", "direction")
	f.tunnelMessages = counter("tunnel_messages_total", "Messages that passed in tunnels, counted when a tunnel ends.", "backend", "direction")

	f.state = gauge("backend_state", "1 for the state that the backend is in.", "backend", "state")
	f.health = gauge("backend_health", "1 for what the health checks have found.", "backend", "health")
	f.wish = gauge("backend_wish", "1 for what the operator wants of the backend.", "backend", "wish")
	f.weight = gauge("backend_weight", "Share of new clients, in proportion to the weights of the other backends.", "backend")
	f.changes = counter("backend_changes_total", "Changes of the backend's state, by the new state.", "backend", "to")
	f.drainLeft = gauge("drain_left", "Requests and tunnels that are left at a backend which is drained or off; 0 means that it may be stopped.", "backend")
	f.drainEnd = gauge("drain_end_timestamp_seconds", "When the drain of the backend ends, if it has a deadline.", "backend")

	f.checked = gauge("backend_checked_timestamp_seconds", "When the backend was checked last.", "backend")
	f.checkTook = gauge("backend_check_duration_seconds", "How long the last check of the backend took.", "backend")

	f.replicas = gauge("replicas", "Other gateways that were heard over the bus lately.")
	f.moved = counter("rebalance_moved_total", "Clients that this gateway has moved to backends with less than their share.")
	f.toMove = gauge("rebalance_left", "Clients that all gateways together have yet to move, 0 while the backends are in balance.")
	f.findings = counter("findings_total", "How often a mistake in the set-up was noticed.", "code")

	f.refused = counter("refused_total", "Requests that Limit and Origin have refused before they came to the gateway, by what they were over.", "limit")
	f.limited = gauge("limit_clients", "Addresses of clients that Limit remembers now.")

	f.storeMemory = counter("store_memory_hits_total", "Lookups of pins that were answered from memory.")
	f.storeCalls = counter("store_calls_total", "Calls of the store to Redis.")
	f.storeErrors = counter("store_errors_total", "Calls of the store to Redis that failed or took too long.")
	f.storeSkipped = counter("store_skipped_total", "Calls of the store that weren't made, since Redis fails.")
	f.storeOpen = gauge("store_circuit_open", "1 while the store leaves Redis alone, because it fails.")
	return f
}
