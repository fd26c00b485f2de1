package nats_test

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
	natsbus "github.com/limpet-go/limpet/bus/nats"
)

// A service subscribes over NATS as it does over Redis.
func Example() {
	conn, err := nats.Connect("nats://127.0.0.1:4222",
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.PingInterval(5*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var b bus.Bus = &natsbus.JetStream{Conn: conn} // or &natsbus.Core{Conn: conn}
	sub, err := b.Subscribe(ctx, "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()
	for m, err := range bus.All(ctx, sub) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s: %s\n", m.ID, m.Data)
	}
}
