//go:build unix

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A violation is an invariant that a history breaks.
type violation struct {
	invariant string
	what      string
	op        op // where
	from      time.Duration
}

// A checker holds a history to the invariants.
type checker struct {
	*controlGroup
	from       time.Duration // the crowd that comes before is no measure
	ops        []op          // by their ends
	faults     []fault
	executed   map[string]int
	violations []violation
	waits      map[string]time.Duration // the longest, by the faults that were in the way
	opened     map[string]time.Duration // when, by session
}

const (
	// recovered is how long after the end of a fault all gateways have found its backend
	// Up again.
	recovered = recovery * 5 / 4
	// noticed is how long after the end of a fault, or of a session, somebody may still
	// wait because of it.
	noticed = 500 * time.Millisecond
	// telling is how long a decision may take from one gateway to all.
	telling = 250 * time.Millisecond
)

// check holds a history to all invariants. The violations are in the order of their time.
func check(ops []op, faults []fault, executed map[string]int, g *controlGroup, from time.Duration) *checker {
	c := &checker{controlGroup: g, from: from, ops: ops, faults: faults, executed: executed, waits: make(map[string]time.Duration), opened: make(map[string]time.Duration)}
	byClient := make(map[string][]op)
	for _, o := range ops {
		byClient[o.client] = append(byClient[o.client], o)
		if o.kind == kindOpen {
			c.opened[o.session] = o.start
		}
		c.drained(o)
		c.answered(o)
		c.undisturbed(o)
		c.closed(o)
	}
	for _, ops := range byClient {
		c.silent(ops)
		c.ordered(ops)
		c.pinned(ops)
	}
	c.once()
	slices.SortStableFunc(c.violations, func(a, b violation) int { return int(a.op.end - b.op.end) })
	return c
}

func (c *checker) fail(invariant string, o op, format string, args ...any) {
	c.failFrom(invariant, o, o.start, format, args...)
}

func (c *checker) failFrom(invariant string, o op, from time.Duration, format string, args ...any) {
	c.violations = append(c.violations, violation{invariant, fmt.Sprintf(format, args...), o, from})
}

// harm tells whether a fault may disturb those whom it concerns at all.
func harm(k faultKind) bool { return k == faultRedis || allowances[k] > 0 }

// at returns the faults of a backend, as a gateway sees it, and of the gateway, that may be
// felt between two moments.
func (c *checker) at(backend, gateway string, from, to time.Duration) (found []fault) {
	for _, f := range c.faults {
		if harm(f.kind) && c.overlaps(f, from, to, recovered) && (f.at(backend, gateway) || f.ofGateway(gateway)) {
			found = append(found, f)
		}
	}
	return found
}

// silent: a client waits for the service no longer than the faults allow that are in its
// way. Its waiting is the sum of its ops that failed in a row, and that which ended the row.
// As long as its home and gateways are well, no fault is in its way.
func (c *checker) silent(ops []op) {
	var waited, since time.Duration
	var served []op
	gateways := make(map[string]bool)
	for i, o := range ops {
		if o.kind == kindPoll || o.kind == kindEnd || o.kind == kindStray {
			continue
		}
		if waited == 0 {
			since = o.start
		}
		waited += o.end - o.start
		gateways[o.gateway] = true
		if o.session != "" && !o.tunnel { // it polls, through all of them
			gateways[everywhere] = true
		}
		if !o.ok() && i < len(ops)-1 {
			continue
		}
		faults := c.inTheWay(homes(served, since), gateways, since, o)
		c.note(waited, faults)
		if bound := c.silence(since, o.end, faults); waited > bound && since >= c.from {
			c.failFrom("silence", o, since, "%s waited for %.3f s, and %.3f s are the bound", o.client, waited.Seconds(), bound.Seconds())
		}
		waited = 0
		clear(gateways)
		if o.boot != "" {
			served = append(served, o)
		}
	}
}

// homes returns the ops whose backends may have been a client's home at a moment: that which
// ended last, those beside it, and those that were under way. served are in the order of
// their ends.
func homes(served []op, at time.Duration) []op {
	first, last := len(served), len(served)
	for last > 0 && served[last-1].end > at {
		last--
	}
	since := at
	if last > 0 {
		since = served[last-1].start
	}
	for first > 0 && served[first-1].end >= since {
		first--
	}
	return served[first:]
}

// note takes down the longest waits.
func (c *checker) note(waited time.Duration, faults []fault) {
	var kinds []string
	for _, f := range faults {
		if allowances[f.kind] > 0 {
			kinds = append(kinds, string(f.kind))
		}
	}
	slices.Sort(kinds)
	what := strings.Join(slices.Compact(kinds), " and ")
	c.waits[what] = max(c.waits[what], waited)
}

// inTheWay returns the faults that may have kept a client waiting until o: those of its
// home and its gateways; and if its home is ill, or it had none, those of all backends.
func (c *checker) inTheWay(homes []op, gateways map[string]bool, since time.Duration, o op) (found []fault) {
	through := func(f fault) bool {
		return harm(f.kind) && (f.gateway == "" || gateways[f.gateway] || gateways[everywhere])
	}
	moves := len(homes) == 0 || slices.ContainsFunc(c.faults, func(f fault) bool {
		return through(f) && slices.ContainsFunc(homes, func(h op) bool { return f.at(h.backend, "") }) && c.overlaps(f, since, o.end, recovered)
	})
	for _, f := range c.faults {
		if through(f) && (moves || f.backend == "") && c.overlaps(f, since, o.end, noticed) {
			found = append(found, f)
		}
	}
	return found
}

// ordered: within a session all messages arrive once, in their order, at one process; and
// their echoes too.
func (c *checker) ordered(ops []op) {
	type state struct {
		seq  int
		boot string
	}
	sessions := make(map[string]*state)
	for _, o := range ops {
		if o.kind == kindStray {
			c.fail("order", o, "%s", o.err)
		}
		if o.session == "" {
			continue
		}
		s := sessions[o.session]
		if s == nil {
			s = &state{}
			sessions[o.session] = s
		}
		if o.boot != "" && o.kind != kindEnd {
			unknown := o.status == 400 && backendOf(o.boot) == backendOf(s.boot) // of a new process
			if s.boot != "" && s.boot != o.boot && !unknown && !c.forgotten(o) {
				c.fail("one backend", o, "session %s belongs to %s, and %s was asked", o.session, s.boot, o.boot)
			} else if s.boot == "" {
				s.boot = o.boot
			}
		}
		if o.kind == kindMessage && o.ok() {
			if o.seq != s.seq+1 {
				c.fail("order", o, "message #%d is the %d. of its session at the node, and the %d. for its client", o.n, o.seq, s.seq+1)
			}
			s.seq = o.seq
		}
	}
}

// pinned: a client with a cookie is served by its home, and its home changes only after a
// fault of it. Where another backend only stood in, the home stays.
func (c *checker) pinned(ops []op) {
	var served []op
	for _, o := range ops {
		if o.backend == "" || o.pin == "" || o.kind != kindGet && o.kind != kindPost && o.kind != kindOpen {
			continue
		}
		there := homes(served, o.start)
		home := func(h op) bool { return h.backend == o.backend }
		ill := func(h op) bool { return len(c.at(h.backend, "", h.start, o.end)) > 0 }
		if len(there) > 0 && !slices.ContainsFunc(there, home) && !slices.ContainsFunc(there, ill) {
			c.failFrom("pin", o, there[0].start, "%s moved from %s to %s, and nothing was done to %s", o.client, there[0].boot, o.boot, there[0].backend)
		}
		if o.pin != "hit" || len(there) == 0 || slices.ContainsFunc(there, home) {
			served = append(served, o)
		}
	}
}

// drained: a backend that is drained gets no new pin, once the gateways had time to tell
// each other.
func (c *checker) drained(o op) {
	if o.pin == "" || o.pin == "hit" || o.backend == "" || o.session != "" && o.kind != kindOpen {
		return
	}
	for _, f := range c.faults {
		if f.kind == faultClosed && f.backend == o.backend && o.start > f.start+telling+detour*c.slowest(f.start, f.start+telling) && (f.end == 0 || o.end < f.end) && !c.apart(f) {
			c.fail("drain", o, "%s is drained since %.3f, and a client's pin is %s there", o.backend, f.start.Seconds(), o.pin)
		}
	}
}

// apart tells whether the gateways may not have heard of a decision: there was no Redis when
// it was made, or only for a moment. Limpet promises "within seconds" then.
func (c *checker) apart(f fault) bool {
	return slices.ContainsFunc(c.faults, func(r fault) bool { return r.kind == faultRedis && r.overlaps(f.start, f.start, apartFor) })
}

// answered: nobody gets an answer of 5xx, or none, to what another backend could have
// answered. That isn't so for a POST that its backend may have executed, an answer that
// broke off, and a session whose backend is in trouble but isn't lost.
func (c *checker) answered(o op) {
	if o.ok() || o.start < c.from || o.kind == kindMessage || o.kind == kindEnd || o.kind == kindStray {
		return
	}
	from := o.start
	atGateway := slices.ContainsFunc(c.at("", o.gateway, from, o.end), func(f fault) bool { return true })
	var anywhere []fault // of backends, through this gateway
	for _, f := range c.faults {
		if harm(f.kind) && f.backend != "" && (f.gateway == "" || f.gateway == o.gateway) && c.overlaps(f, from, o.end, recovered) {
			anywhere = append(anywhere, f)
		}
	}
	slow := slices.ContainsFunc(anywhere, func(f fault) bool { return f.kind == faultSlow })
	switch {
	case c.forgotten(o):
	case slow: // the checks, and the load balancer, may have run into their limits
	case o.status == 400 && o.kind == kindPoll: // the session's end, which undisturbed judges
	case o.status >= 500 && o.kind == kindPost && len(anywhere) > 0:
	case o.status >= 500 && o.kind == kindPoll && alive(c.at(o.home, o.gateway, from, o.end)):
	case o.status == 200 && len(anywhere) > 0: // it broke off
	case o.status == 101 && len(anywhere) > 0:
	case o.status == 0 && o.kind == kindPoll && atGateway: // a poll that outlasts the gateway
	default:
		c.fail("answer", o, "%s of %s: %s", o.kind, o.client, o.err)
	}
}

// alive tells whether one of the faults leaves its backend alive, so that a session there
// isn't lost.
func alive(faults []fault) bool {
	return slices.ContainsFunc(faults, func(f fault) bool { return f.kind != faultKill && f.kind != faultStop && f.kind != faultDrain })
}

// undisturbed: a session at a well backend through a well gateway doesn't end.
func (c *checker) undisturbed(o op) {
	if o.kind != kindEnd || o.end < c.from {
		return
	}
	if c.forgotten(o) {
		return
	}
	if len(c.at(o.backend, o.gateway, o.end-noticed, o.end)) > 0 {
		return
	}
	if !o.tunnel && len(c.at(o.backend, "", o.end-noticed, o.end)) > 0 { // it polls through all gateways
		return
	}
	c.fail("undisturbed", o, "%s lost its session at %s, to which nothing was done: %s", o.client, o.boot, o.err)
}

// forgotten tells whether not all gateways may know a session: they learn those of version 3
// of the protocol over Redis, each keeps them in its memory, and Redis loses them when it is
// killed.
func (c *checker) forgotten(o op) bool {
	return isOld(o.client) && slices.ContainsFunc(c.faults, func(f fault) bool {
		return (f.kind == faultRedis || f.kind == faultSlow) && c.overlaps(f, c.opened[o.session], o.end, recovered)
	})
}

// closed: a tunnel that a gateway ends, or whose backend dies, ends with the close frame of
// a service restart, unless a frame was cut.
func (c *checker) closed(o op) {
	if o.kind != kindEnd || !o.tunnel || o.code == 1012 {
		return
	}
	for _, f := range c.at(o.backend, o.gateway, o.end-noticed, o.end) {
		if f.kind == faultCut {
			return
		}
	}
	c.fail("close frame", o, "the WebSocket of %s ended with code %d: %s", o.client, o.code, o.err)
}

// once: no POST is executed twice.
func (c *checker) once() {
	for _, o := range c.ops {
		if o.kind == kindPost && c.executed[fmt.Sprintf("%s #%d", o.client, o.n)] > 1 {
			c.fail("once", o, "POST #%d of %s was executed %d times", o.n, o.client, c.executed[fmt.Sprintf("%s #%d", o.client, o.n)])
		}
	}
}
