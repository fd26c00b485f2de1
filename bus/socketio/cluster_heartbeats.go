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
type nodes struct {
	mu   sync.Mutex
	seen map[string]time.Time // by uid; nil where there are no heartbeats
}

// begin has members noted from now on.
func (n *nodes) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = make(map[string]time.Time)
}

// heard notes that a message of a member came.
func (n *nodes) heard(uid string) {
	if uid == "" || uid == emitterUID {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen != nil {
		n.seen[uid] = time.Now()
	}
}

// all returns the uids of those that are there, nil where there are no heartbeats.
func (n *nodes) all() map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil {
		return nil
	}
	all := make(map[string]bool, len(n.seen))
	for uid := range n.seen {
		all[uid] = true
	}
	return all
}

// forget drops those that weren't heard for too long, and returns them.
func (n *nodes) forget() (uids []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for uid, last := range n.seen {
		if time.Since(last) > heartbeatTimeout {
			delete(n.seen, uid)
			uids = append(uids, uid)
		}
	}
	return uids
}

func (n *nodes) remove(uid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.seen, uid)
}

// gone has nobody wait for a member's answers any more.
func (c *Cluster) gone(uid string) {
	c.nodes.remove(uid)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.asked {
		r.gone(uid)
	}
}

// beat tells the other members of this one until ctx ends. The Cluster is ready
// when they have had a second to tell of themselves.
func (c *Cluster) beat(ctx context.Context) {
	c.nodes.begin()
	greeted := c.tell(ctx, initialHeartbeat)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	defer c.tell(context.WithoutCancel(ctx), adapterClose)
	last := time.Now()
	ready := sync.OnceFunc(c.found)
	for {
		select {
		case <-second.C:
		case <-ctx.Done():
			return
		}
		if greeted {
			ready()
		} else {
			greeted = c.tell(ctx, initialHeartbeat)
		}
		for _, uid := range c.nodes.forget() {
			c.gone(uid)
		}
		if time.Since(last) >= heartbeatInterval {
			c.tell(ctx, heartbeat)
			last = time.Now()
		}
	}
}

// tell sends a message without content. The next one makes up for an error.
func (c *Cluster) tell(ctx context.Context, k kind) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return publish(ctx, c.link, c.adapter, &message{kind: k, nsp: c.nsp, uid: c.uid}) == nil
}
