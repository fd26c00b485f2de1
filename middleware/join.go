package middleware

import (
	"context"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/upgrade"
)

// Join makes a WebSocket's tunnel a member of a hub until the tunnel ends. The hub's
// messages to the member are sent to the client, between the messages of its backend. The
// backend doesn't see them. Messages of the client go to the backend only. Call Join from
// [Observer].Opened with the request's context. It waits, and fails, as [hub.Hub.Connect]
// does.
//
// A message of the hub waits until the backend's message that is being sent is complete.
// If that takes longer than [hub.Options].WriteTimeout, the tunnel is closed as that of a
// slow client.
//
// The client must be able to tell the hub's messages from those of its backend. A
// Socket.IO client can't: it would take them for packets of its backend.
func Join(ctx context.Context, h *hub.Hub, t *upgrade.Tunnel, opts hub.MemberOptions) (*hub.Member, error) {
	m, err := h.Connect(ctx, member{t}, opts)
	if err != nil {
		return nil, err
	}
	t.OnClosed(func(upgrade.Summary) { m.Close(closecode.ServiceRestart, "") })
	return m, nil
}

// member implements the hub's connection with a tunnel.
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
