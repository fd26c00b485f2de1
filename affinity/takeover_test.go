package affinity_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// Random secrets go to affinities of the same kind and name, and only to those without Secrets.
func TestInheritSecrets(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	chain := func() affinity.Chain {
		return affinity.Chain{&affinity.EngineIO{Logger: quiet}, affinity.Chain{&affinity.Cookie{Logger: quiet}}}
	}
	first := chain()
	secrets := affinity.RandomSecrets(first)
	if len(secrets) != 2 {
		t.Fatalf("%d secrets", len(secrets))
	}
	next := chain()
	affinity.InheritSecrets(next, secrets)
	if !maps.EqualFunc(affinity.RandomSecrets(next), secrets, slices.Equal) {
		t.Error("the secrets are others")
	}
	fixed := &affinity.Cookie{Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}
	affinity.InheritSecrets(fixed, secrets)
	if len(affinity.RandomSecrets(fixed)) != 0 {
		t.Error("a random secret has taken the place of one that was chosen")
	}
}

// Pins keep their ages, and win over older ones of their key.
func TestInheritPin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	old, next := &affinity.LRU{Size: 5000}, &affinity.LRU{Age: time.Hour}
	chain := affinity.Chain{&affinity.Table{Store: old, Name: "t"}, &affinity.Table{Store: old, Name: "other"}}
	for _, key := range []string{"a", "b"} {
		if _, err := old.Swap(ctx, key, "", "backend-"+key); err != nil {
			t.Fatal(err)
		}
	}
	middle := time.Now()
	if _, err := old.Swap(ctx, "c", "", "backend-c"); err != nil {
		t.Fatal(err)
	}
	target := &affinity.Table{Store: next, Name: "t"}
	n := 0
	for pin := range affinity.StoredPins(chain, time.Time{}) {
		if pin.Key == "b" {
			pin.Born = pin.Born.Add(-2 * time.Hour)
		}
		affinity.InheritPin(target, pin)
		n++
	}
	if n != 6 { // the store is in two tables
		t.Errorf("%d pins", n)
	}
	n = 0
	for pin := range affinity.StoredPins(chain[0], middle) {
		if n++; pin.Key != "c" {
			t.Errorf("%+v was used before", pin)
		}
	}
	if n != 1 {
		t.Errorf("%d pins were used since", n)
	}
	for key, want := range map[string]string{"a": "backend-a", "b": "", "c": "backend-c"} {
		if home, err := next.Load(ctx, key); err != nil || home != want {
			t.Errorf("%s is at %q, %v", key, home, err)
		}
	}
	affinity.InheritPin(target, affinity.StoredPin{Place: "table t", Key: "a", Backend: "older", Born: middle.Add(-time.Hour), Used: time.Now()})
	if home, _ := next.Load(ctx, "a"); home != "backend-a" {
		t.Errorf("an older pin has won: %q", home)
	}
}
