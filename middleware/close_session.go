package middleware

import (
	"context"
	"errors"
	"fmt"
)

// CloseSession closes the tunnels of one client as [upgrade.Tunnel.Close] does, on
// this replica and on all that the Bus reaches. The nodes of its polling sessions of
// Engine.IO are told that the sessions are over, of each session that has a request under
// way; a client that polls nearly always has one. key is the key of the client's pin,
// which [Record] and [upgrade.Tunnel.Key] give. With an affinity that hashes an
// address, many people may have the same key. The client may connect again at once: to
// keep it out, the application has to refuse it when it signs in.
//
// An error means that other replicas may not have got the message, for example because
// nobody has called Run. A replica that is cut off from the bus doesn't get it later.
func (g *Gateway) CloseSession(ctx context.Context, key string, code int, reason string) error {
	if key == "" {
		return errors.New("limpet: close session: no key")
	}
	n := sessionNote{Session: sessionHash(key), Code: code, Reason: reason}
	g.closeSession(n)
	return g.tellReplicas(ctx, "close session", note{Close: &n})
}

// tellReplicas publishes what the operator wants of a client, if there are replicas.
func (g *Gateway) tellReplicas(ctx context.Context, what string, n note) error {
	if g.replicas == nil {
		return nil
	}
	n.From = g.replicas.id
	err := g.replicas.publish(ctx, g.replicas.topic, n)
	if err == nil && !g.replicas.ran.Load() {
		err = fmt.Errorf("limpet: %s: this gateway has a Bus but does not take part in it, and other replicas may not either: call go gateway.Run(ctx), or serve with Gateway.Serve", what)
	}
	return err
}

func (g *Gateway) closeSession(n sessionNote) {
	for t := range g.upgrade.Tunnels() {
		if key := t.Key(); key != "" && sessionHash(key) == n.Session {
			t.Close(n.Code, n.Reason)
		}
	}
	g.endPollsOf(n.Session)
}
