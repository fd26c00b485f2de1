package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/bus"
)

// Bus returns a collector of the figures of a bus: a *bus.Redis, a *bus.Streams, a
// *bus.Memory, or any other that counts in the same way. It is for a service that has no
// gateway, or whose gateway uses another bus than the one in [Options]. To register
// several, give each a label of its own, as with [New].
func Bus(b interface{ Stats() bus.Stats }) prometheus.Collector {
	c := &busCollector{stats: b.Stats}
	c.published = c.counter("bus_published_total", "Messages that the bus has taken.")
	c.errors = c.counter("bus_publish_errors_total", "Messages that the bus has not, or perhaps not, taken.")
	c.delivered = c.counter("bus_delivered_total", "Messages that were put into the queues of subscriptions.")
	c.gaps = c.counter("bus_gaps_total", "Times that a subscription was told that messages are missing, or may be.")
	c.dropped = c.counter("bus_dropped_total", "Messages that slow subscriptions have lost.")
	c.closedSlow = c.counter("bus_closed_slow_total", "Subscriptions that were closed because they were slow.")
	c.disconnects = c.counter("bus_disconnects_total", "Times that a connection for subscriptions broke or was given up.")
	c.topics = c.gauge("bus_topics", "Topics that are subscribed to.")
	c.away = c.gauge("bus_topics_away", "Topics that are subscribed to and whose messages don't arrive now.")
	c.subscriptions = c.gauge("bus_subscriptions", "Subscriptions that are open.")
	c.queued = c.gauge("bus_queued", "Messages that wait in the queues of all subscriptions.")
	c.longest = c.gauge("bus_longest_queue", "Messages that wait in the longest queue of a subscription.")
	c.publishTimes = prometheus.NewDesc("limpet_bus_publish_duration_seconds", "How long it took to publish a message, or to fail.", nil, nil)
	return c
}

type busCollector struct {
	stats func() bus.Stats
	set

	published, errors, delivered, gaps, dropped, closedSlow, disconnects family
	topics, away, subscriptions, queued, longest                         family
	publishTimes                                                         *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (c *busCollector) Describe(ch chan<- *prometheus.Desc) {
	c.describe(ch)
	ch <- c.publishTimes
}

// Collect implements [prometheus.Collector].
func (c *busCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.stats()
	c.published.is(ch, s.Published)
	c.errors.is(ch, s.PublishErrors)
	c.delivered.is(ch, s.Delivered)
	c.gaps.is(ch, s.Gaps)
	c.dropped.is(ch, s.Dropped)
	c.closedSlow.is(ch, s.ClosedSlow)
	c.disconnects.is(ch, s.Disconnects)
	c.topics.is(ch, int64(s.Topics))
	c.away.is(ch, int64(s.Away))
	c.subscriptions.is(ch, int64(s.Subscriptions))
	c.queued.is(ch, int64(s.Queued))
	c.longest.is(ch, int64(s.LongestQueue))
	ch <- histogram(c.publishTimes, s.PublishTimes)
}

// histogram returns what d has counted with the cumulative buckets of Prometheus.
func histogram(desc *prometheus.Desc, d bus.Durations) prometheus.Metric {
	var count uint64
	buckets := make(map[float64]uint64)
	for i, bound := range d.Bounds() {
		count += uint64(d.Counts[i])
		buckets[bound.Seconds()] = count
	}
	count += uint64(d.Counts[len(d.Counts)-1])
	return prometheus.MustNewConstHistogram(desc, count, d.Sum.Seconds(), buckets)
}
