package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/bus/hub"
)

// Hub returns a collector of the figures of a hub, for a service that has no gateway, or
// several hubs. To register several, give each a label of its own, as with [New].
func Hub(h *hub.Hub) prometheus.Collector {
	c := &hubCollector{hub: h}
	c.members = c.gauge("hub_members", "Members of the hub on this node.")
	c.rooms = c.gauge("hub_rooms", "Rooms that have members on this node.")
	c.nodes = c.gauge("hub_nodes", "Nodes of the hub that are known, this one included.")
	c.sent = c.counter("hub_sent_total", "Messages that this node has sent.")
	c.received = c.counter("hub_received_total", "Messages that came from other nodes.")
	c.delivered = c.counter("hub_delivered_total", "Messages that the connections of members have taken.")
	c.dropped = c.counter("hub_dropped_total", "Messages that slow members have lost.")
	c.slow = c.counter("hub_closed_slow_total", "Members that were closed because they were slow.")
	c.gaps = c.counter("hub_gaps_total", "Times that messages of other nodes were missing, or may have been.")
	c.queued = c.gauge("hub_queued_bytes", "Bytes that wait for the connections of members.")
	c.longest = c.gauge("hub_longest_queue_bytes", "Bytes that wait for the member for whom most does.")
	return c
}

type hubCollector struct {
	hub *hub.Hub
	set

	members, rooms, nodes, sent, received, delivered, dropped, slow, gaps, queued, longest family
}

// Describe implements [prometheus.Collector].
func (c *hubCollector) Describe(ch chan<- *prometheus.Desc) { c.describe(ch) }

// Collect implements [prometheus.Collector].
func (c *hubCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.hub.Stats()
	c.members.is(ch, int64(s.Members))
	c.rooms.is(ch, int64(s.Rooms))
	c.nodes.is(ch, int64(s.Nodes))
	c.sent.is(ch, s.Sent)
	c.received.is(ch, s.Received)
	c.delivered.is(ch, s.Delivered)
	c.dropped.is(ch, s.Dropped)
	c.slow.is(ch, s.Slow)
	c.gaps.is(ch, s.Gaps)
	c.queued.is(ch, s.QueuedBytes)
	c.longest.is(ch, int64(s.LongestQueue))
}
