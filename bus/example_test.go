package bus_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/limpet-go/limpet/bus"
)

// A subscription is a loop around Next. What a Gap says to do depends on what
// the messages are for: to fetch the state anew, or to tell somebody.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var b bus.Bus = &bus.Memory{Queue: 2} // or &bus.Redis{Client: client}
	sub, err := b.Subscribe(ctx, "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	for _, order := range []string{"tea", "milk", "bread"} {
		if err := b.Publish(ctx, "orders", []byte(order)); err != nil {
			fmt.Println(err)
		}
	}
	for {
		m, err := sub.Next(ctx)
		var gap *bus.Gap
		switch {
		case err == nil:
			fmt.Printf("%s: %s\n", m.Topic, m.Data)
			if string(m.Data) == "bread" {
				cancel() // enough
			}
		case errors.As(err, &gap):
			fmt.Println(gap)
		default:
			fmt.Println(err)
			return
		}
	}
	// Output:
	// bus: the subscriber was too slow, 1 messages are lost
	// orders: milk
	// orders: bread
	// context canceled
}
