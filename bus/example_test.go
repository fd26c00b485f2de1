package bus_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/limpet-go/limpet/bus"
)

// A subscriber is a loop over All. What a Gap says to do depends on what the messages are
// for: to fetch the state anew, or to tell somebody.
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
	for m, err := range bus.All(ctx, sub) {
		var gap *bus.Gap
		switch {
		case err == nil:
			fmt.Printf("%s: %s\n", m.Topic, m.Data)
			if string(m.Data) == "bread" {
				cancel() // enough
			}
		case errors.As(err, &gap):
			fmt.Println(gap)
		default: // the last
			fmt.Println(err)
		}
	}
	// Output:
	// bus: the subscriber was too slow, 1 messages are lost
	// orders: milk
	// orders: bread
	// context canceled
}

// An Order is what a shop's processes tell each other about. Trace goes along with it.
type Order struct {
	Item  string            `json:"item"`
	Trace map[string]string `json:"trace,omitempty"` // as otel's propagation.MapCarrier fills it
}

// The name of the topic and the type of its messages, in one place.
const orders bus.Topic[Order] = "orders"

// A typed topic is declared once, and its messages are plain JSON.
func ExampleTopic() {
	ctx := context.Background()
	var b bus.Bus = &bus.Memory{}
	sub, err := b.Subscribe(ctx, string(orders))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sub.Close()

	if err := orders.Publish(ctx, b, Order{Item: "tea"}); err != nil {
		fmt.Println(err)
	}
	for order, err := range orders.All(ctx, sub) {
		fmt.Println(order.Item, err)
		break
	}
	// Output: tea <nil>
}

// A History has the last messages for who comes, and those behind the last one that somebody
// has seen for who comes back.
func ExampleHistory() {
	ctx := context.Background()
	var b bus.History = &bus.Memory{History: 100} // or &bus.Streams{Client: client}
	seen, _ := b.Append(ctx, "orders", []byte("tea"))
	for _, order := range []string{"milk", "bread"} {
		_ = b.Publish(ctx, "orders", []byte(order))
	}

	last, _ := b.Last(ctx, "orders", 2)
	missed, err := b.After(ctx, "orders", seen, 100)
	var gap *bus.Gap
	if errors.As(err, &gap) {
		fmt.Println("some are missing, or may be")
	}
	fmt.Printf("%s %s, %d missed\n", last[0].Data, last[1].Data, len(missed))
	// Output: milk bread, 2 missed
}
