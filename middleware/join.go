package middleware

import (
	"context"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/upgrade"
)

// Join makes a WebSocket's tunnel a member of a hub until it ends: messages to
// the member go to the client, between those of its backend, which knows nothing
// of it. What the client says goes to the backend only. Call it from
// [Trace].Opened, with the request's context; it waits and fails as
// [hub.Hub.Connect] does.
//
// Messages wait for one of the backend's that is passing, which counts for
// [hub.Options].WriteTimeout: if it takes longer, the tunnel is closed as that
// of a slow client.
//
// The client must be able to tell the hub's messages from those of its backend:
// Socket.IO clients would take them for packets of the backend's.
func Join(ctx context.Context, h *hub.Hub, t *upgrade.Tunnel, opts hub.MemberOptions) (*hub.Member, error) {
	m, err := h.Connect(ctx, member{t}, opts)
	if err != nil {
		return nil, err
	}
	t.OnClosed(func(upgrade.Summary) { m.Close(closeRestart, "") })
	return m, nil
}

// member is a tunnel as the hub sees it.
type member struct{ tunnel *upgrade.Tunnel }

func (m member) Send(ctx context.Context, messages []*hub.Frame) error {
	frames := make([][]byte, len(messages))
	for i, f := range messages {
		frames[i] = f.Bytes()
	}
	return m.tunnel.Send(ctx, frames...)
}

func (m member) Close(_ context.Context, code int, reason string) error {
	m.tunnel.Close(code, reason)
	return nil
}
