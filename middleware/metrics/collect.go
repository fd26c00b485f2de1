package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	c.describe(ch)
	c.backends.duration.Describe(ch)
	c.backends.firstByte.Describe(ch)
	c.tunnels.Describe(ch)
	for _, part := range c.parts {
		part.Describe(ch)
	}
}

// Collect implements [prometheus.Collector]. It calls [limpet.Gateway.Stats], which takes
// about a millisecond for 10,000 tunnels.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	known, stats := c.backends.tidy(), c.gateway.Stats()
	for _, at := range stats.Backends {
		if b := known[at.Backend.ID()]; b != nil {
			c.collectNow(ch, at)
			c.collectCounts(ch, b, true)
		}
	}
	c.collectCounts(ch, c.backends.none, false)
	c.collectOwn(ch)
	c.backends.duration.Collect(ch)
	c.backends.firstByte.Collect(ch)
	c.tunnels.Collect(ch)

	if stats.Replicas != nil { // there is a Bus
		c.replicas.is(ch, int64(len(stats.Replicas)))
	}
	if stats.Rebalance != nil {
		c.moved.is(ch, stats.Rebalance.Moved)
		c.toMove.is(ch, int64(stats.Rebalance.Left))
	}
	for _, finding := range stats.Findings {
		c.findings.is(ch, finding.Count, finding.Code)
	}
	c.collectRefused(ch)
	c.collectStore(ch)
	for _, part := range c.parts {
		part.Collect(ch)
	}
}

// is sends the value of the series with these labels.
func (f family) is(ch chan<- prometheus.Metric, v int64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.Desc, f.kind, float64(v), labels...)
}

// seconds sends a time in the unit of Prometheus.
func (f family) seconds(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.Desc, f.kind, v, labels...)
}

// unix returns a moment in the unit of Prometheus.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// each sends the counts of an array whose index has these values of a label, the last one.
// Without all it leaves out those that are 0.
func (f family) each(ch chan<- prometheus.Metric, counts []atomic.Int64, values []string, all bool, labels ...string) {
	for i := range counts {
		if n := counts[i].Load(); n > 0 || all {
			f.is(ch, n, append(labels, values[i])...)
		}
	}
}

// oneOf sends 1 for the value of a label that holds, and 0 for the others.
func (f family) oneOf(ch chan<- prometheus.Metric, i int, values []string, id string) {
	for n, value := range values {
		f.is(ch, flag(n == i), id, value)
	}
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// collectNow sends how a backend of the pool stands now.
func (c *Collector) collectNow(ch chan<- prometheus.Metric, at limpet.BackendStats) {
	b := at.Backend
	id, wanted, status := b.ID(), b.Wanted(), b.Status()
	c.inFlight.is(ch, at.Requests, id)
	c.queued.is(ch, b.Queued(), id)
	c.full.is(ch, b.Refused(), id)
	c.open.is(ch, at.Tunnels, id)
	c.state.oneOf(ch, int(b.State()), states[:], id)
	c.health.oneOf(ch, int(b.Health()), healths[:], id)
	c.wish.oneOf(ch, int(b.Wish().State), wishes[:], id)
	c.weight.is(ch, int64(b.Weight()), id)
	if !status.Checked.IsZero() {
		c.checked.seconds(ch, unix(status.Checked), id)
		c.checkTook.seconds(ch, status.CheckTook.Seconds(), id)
	}
	if wanted.State != balancer.Up {
		c.drainLeft.is(ch, at.Requests+at.Tunnels, id)
	}
	if wanted.State == balancer.Draining && wanted.Within > 0 {
		c.drainEnd.seconds(ch, unix(wanted.Since.Add(wanted.Within)), id)
	}
}

// collectCounts sends what was counted for a backend. With all, its series begin at 0, so
// that the first increase isn't lost; only those that depend on how tunnels end begin
// with their first one.
func (c *Collector) collectCounts(ch chan<- prometheus.Metric, b *backend, all bool) {
	one := func(f family, n *atomic.Int64) {
		if v := n.Load(); v > 0 || all {
			f.is(ch, v, b.id)
		}
	}
	for i := range b.answers {
		if n := b.answers[i].Load(); n > 0 || all && i > 0 {
			c.requests.is(ch, n, b.id, limpet.SourceBackend.String(), classes[i])
		}
	}
	c.pins.each(ch, b.pins[:], outcomes[:], all, b.id)
	c.aborts.each(ch, b.aborts[:], aborters[:], all, b.id)
	one(c.received, &b.received)
	one(c.sent, &b.sent)
	one(c.unknown, &b.unknown)

	c.failures.each(ch, b.failures[:], failures[:], all, b.id)
	one(c.retries, &b.retries)
	one(c.redispatches, &b.redispatches)
	c.changes.each(ch, b.changes[:], states[:], all, b.id)

	one(c.opened, &b.opened)
	for side := range b.closed {
		c.closedTunnels.each(ch, b.closed[side][:], closeCodes[:], false, b.id, upgrade.Side(side).String())
	}
	c.tunnelBytes.each(ch, b.bytes[:], directions[:], all, b.id)
	c.tunnelMessages.each(ch, b.messages[:], directions[:], all, b.id)
}

// collectOwn sends what was counted of requests that no backend has answered.
func (c *Collector) collectOwn(ch chan<- prometheus.Metric) {
	usual := [len(sources)]string{"4xx", "", "4xx", "5xx"} // begin at 0
	for source := range c.own.requests {
		for class := range c.own.requests[source] {
			n := c.own.requests[source][class].Load()
			if n > 0 || classes[class] == usual[source] {
				c.requests.is(ch, n, "", sources[source], classes[class])
			}
		}
	}
	for i := range c.own.causes {
		c.ownAnswers.is(ch, c.own.causes[i].Load(), ownCauses[i].cause)
	}
}

func (c *Collector) collectStore(ch chan<- prometheus.Metric) {
	if c.opts.Store == nil {
		return
	}
	s := c.opts.Store.Stats()
	c.storeMemory.is(ch, s.Memory)
	c.storeCalls.is(ch, s.Calls)
	c.storeErrors.is(ch, s.Errors)
	c.storeSkipped.is(ch, s.Skipped)
	c.storeOpen.is(ch, flag(s.Open))
}

func (c *Collector) collectRefused(ch chan<- prometheus.Metric) {
	if c.opts.Limit != nil {
		s := c.opts.Limit.Stats()
		c.limited.is(ch, int64(s.Clients))
		c.refused.is(ch, s.Connections, "connections")
		c.refused.is(ch, s.Rate, "rate")
		c.refused.is(ch, s.TooManyTunnels, "tunnels")
		c.refused.is(ch, s.Handshakes, "handshakes")
		c.refused.is(ch, s.Headers, "headers")
	}
	if c.opts.Origin != nil {
		s := c.opts.Origin.Stats()
		c.refused.is(ch, s.Refused, "origin")
		c.refused.is(ch, s.Reported, "origin-report")
	}
}
