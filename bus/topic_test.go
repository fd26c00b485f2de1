package bus_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

type reading struct {
	Sensor string  `json:"sensor"`
	Value  float64 `json:"value"`
}

const readings bus.Topic[reading] = "readings"

func TestTopic(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{Queue: 3}
	sub, err := m.Subscribe(t.Context(), string(readings))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	send := func(v reading) {
		t.Helper()
		if err := readings.Publish(t.Context(), m, v); err != nil {
			t.Fatal(err)
		}
	}
	send(reading{"lost", 0})
	send(reading{"a", 1.5})
	if err := m.Publish(t.Context(), string(readings), []byte("<xml/>")); err != nil { // of a foreign program
		t.Fatal(err)
	}
	send(reading{"b", 2})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for v, err := range readings.All(ctx, sub) {
		got = append(got, v.Sensor+spell(bus.Message{}, err))
		if v.Sensor == "b" {
			cancel()
		}
	}
	want := "gap1 a " + `bus: message on "readings": invalid character '<' looking for beginning of value` + " b canceled"
	if got := strings.Join(got, " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Other programs see the JSON as it is.
func TestTopicIsRaw(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{}
	sub, err := m.Subscribe(t.Context(), "readings")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := readings.Publish(t.Context(), m, reading{"a", 1.5}); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.Next(t.Context())
	if got, want := string(msg.Data), `{"sensor":"a","value":1.5}`; got != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if v, err := readings.Decode(msg); v != (reading{"a", 1.5}) || err != nil {
		t.Errorf("decoded %v, %v", v, err)
	}
}

func TestTopicErrors(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{}
	if err := readings.Publish(t.Context(), m, reading{Value: math.NaN()}); err == nil || m.Stats() != (bus.Stats{}) {
		t.Errorf("a value that is no JSON was published: %v", err)
	}
	if _, err := readings.Decode(bus.Message{Topic: "orders", Data: []byte("{}")}); err == nil {
		t.Error("a message of another topic was decoded")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := readings.Publish(over, m, reading{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish: %v", err)
	}
}
