package affinity_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
)

// Replicas of a gateway that share a Redis keep each user at one backend.
func ExampleRedis() {
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:                 []string{"redis.example:6379"}, // several for a Cluster; with MasterName for Sentinels
		ContextTimeoutEnabled: true,
		DialTimeout:           time.Second,
	})
	defer client.Close()
	table := &affinity.Table{
		Key:   affinity.Query("user"),
		Store: &affinity.Redis{Client: client, Idle: time.Hour},
	}
	fmt.Println(table.Validate())
	// Output: <nil>
}

// While Redis is away, a replica goes on with its own memory.
func ExampleRedis_away() {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true, DialerRetries: 1})
	defer client.Close()
	store := &affinity.Redis{Client: client, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	ctx := context.Background()

	_, err := store.Load(ctx, "ann")
	fmt.Println("not known here:", err != nil)
	now, err := store.Swap(ctx, "ann", "", "node-1")
	fmt.Println(now, "isn't known elsewhere:", err != nil)
	home, err := store.Load(ctx, "ann")
	fmt.Println(home, err)
	// Output:
	// not known here: true
	// node-1 isn't known elsewhere: true
	// node-1 <nil>
}
