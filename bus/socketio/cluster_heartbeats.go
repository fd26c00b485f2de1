package socketio

import (
	"context"
	"sync"
	"time"
)

// Heartbeats as socket.io-adapter's ClusterAdapterWithHeartbeat has them by
// default.
const (
	heartbeatInterval = 5 * time.Second
	heartbeatTimeout  = 10 * time.Second
)

// nodes are the other members, where they tell of themselves.
type members struct {
	mu   sync.Mutex
	seen map[string]time.Time // by uid; nil where there are no heartbeats
}

// begin has members noted from now on.
func (m *members) enable() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = make(map[string]time.Time)
}

// heard notes that a message of a member came.
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

// all returns the uids of those that are there, nil where there are no heartbeats.
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

// forget drops those that weren't heard for too long, and returns them.
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

func (m *members) remove(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.seen, uid)
}

// gone has nobody wait for a member's answers any more.
func (c *Cluster) memberLeft(uid string) {
	c.members.remove(uid)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.asked {
		p.memberLeft(uid)
	}
}

// beat tells the other members of this one until ctx ends. The Cluster is ready
// when they have had a second to tell of themselves.
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

// tell sends a message without content. The next one makes up for an error.
func (c *Cluster) announce(ctx context.Context, k kind) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return publish(ctx, c.link, c.adapter, &message{kind: k, nsp: c.nsp, uid: c.uid}) == nil
}
