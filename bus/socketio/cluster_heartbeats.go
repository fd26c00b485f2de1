package socketio

import (
	"context"
	"sync"
	"time"
)

// The intervals of heartbeats are the defaults of socket.io-adapter's
// ClusterAdapterWithHeartbeat: each member sends one every heartbeatInterval, and is
// forgotten after heartbeatTimeout without a message.
const (
	heartbeatInterval = 5 * time.Second
	heartbeatTimeout  = 10 * time.Second
)

// members are the other members of a cluster in which they announce themselves by
// heartbeats, as those of Streams with Heartbeats do. Elsewhere they are never
// enabled, and members are counted as subscribers.
//
//	a member is   event                                          who
//	added         any message of it                              saw, called by deliver
//	removed       its adapterClose                               remove, called by deliver
//	removed       no message of it for heartbeatTimeout          expire, called by beat
//
// Requests that wait for a member that was removed are told by memberLeft. mu guards
// seen; it may be taken while Cluster.mu is held, not the other way around.
type members struct {
	mu   sync.Mutex
	seen map[string]time.Time // by uid; nil where there are no heartbeats
}

// enable begins to record members.
func (m *members) enable() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = make(map[string]time.Time)
}

// saw records that a message of a member has arrived. An Emitter is no member.
func (m *members) saw(uid string) {
	if uid == "" || uid == emitterUID {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen != nil {
		m.seen[uid] = time.Now()
	}
}

// all returns the uids of the members, nil if there are no heartbeats.
func (m *members) all() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil {
		return nil
	}
	all := make(map[string]bool, len(m.seen))
	for uid := range m.seen {
		all[uid] = true
	}
	return all
}

// expire removes the members that sent nothing for too long, and returns their uids.
func (m *members) expire() (uids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, last := range m.seen {
		if time.Since(last) > heartbeatTimeout {
			delete(m.seen, uid)
			uids = append(uids, uid)
		}
	}
	return uids
}

// remove removes a member.
func (m *members) remove(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.seen, uid)
}

// memberLeft removes a member, and no request waits for its answer any more.
func (c *Cluster) memberLeft(uid string) {
	c.members.remove(uid)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.asked {
		p.memberLeft(uid)
	}
}

// beat announces this member to the others until ctx ends, and its end then. It
// calls started a second after its first message was sent: by then the others have
// answered it with heartbeats, so their number is known.
func (c *Cluster) beat(ctx context.Context) {
	c.members.enable()
	greeted := c.announce(ctx, initialHeartbeat)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	defer c.announce(context.WithoutCancel(ctx), adapterClose)
	last := time.Now()
	ready := sync.OnceFunc(c.started)
	for {
		select {
		case <-second.C:
		case <-ctx.Done():
			return
		}
		if greeted {
			ready()
		} else {
			greeted = c.announce(ctx, initialHeartbeat)
		}
		for _, uid := range c.members.expire() {
			c.memberLeft(uid)
		}
		if time.Since(last) >= heartbeatInterval {
			c.announce(ctx, heartbeat)
			last = time.Now()
		}
	}
}

// announce sends a message that has no content and tells whether Redis has it. An
// error isn't logged, since the next heartbeat makes up for it.
func (c *Cluster) announce(ctx context.Context, k kind) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return publish(ctx, c.link, c.adapter, &message{kind: k, nsp: c.nsp, uid: c.uid}) == nil
}
