package metrics_test

import (
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

func ExampleNew() {
	pool := balancer.Static("a=http://10.0.0.1:3000", "b=http://10.0.0.2:3000,weight=3")
	gateway, err := limpet.NewGateway(pool, &limpet.Options{Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}})
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry() // or prometheus.DefaultRegisterer
	registry.MustRegister(metrics.New(gateway, nil))

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "limpet_backend_weight" {
			for _, m := range f.GetMetric() {
				fmt.Println(f.GetName(), m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
			}
		}
	}
	// Output:
	// limpet_backend_weight a 1
	// limpet_backend_weight b 3
}
