package nats_test

import (
	"testing"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/bustest"
	natsbus "github.com/limpet-go/limpet/bus/nats"
)

func TestJetStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	bustest.TestBus(t, func() bus.Bus {
		return &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Queue: 256, Timeout: patience}
	}, bustest.Options{Queue: 256, History: true})
}
