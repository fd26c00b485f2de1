package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
	"go.opentelemetry.io/otel/trace"

	"github.com/limpet-go/limpet/upgrade"
)

// node is a service that is traced as any other: it knows nothing of the gateway. It says
// who it is, and echoes what comes on WebSockets.
func node(name string, tracer trace.Tracer) http.Handler {
	return traced(tracer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !upgrade.Is(r) {
			fmt.Fprintf(w, "hello from %s\n", name)
			return
		}
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for ctx := context.Background(); ; { // the request's has ended with the hijacking
			kind, data, err := conn.Read(ctx)
			if err != nil || conn.Write(ctx, kind, data) != nil {
				return
			}
		}
	}))
}
