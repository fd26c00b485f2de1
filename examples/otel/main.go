// The otel example has traces of OpenTelemetry across a gateway and its nodes: each
// request is one trace, whoever began it, with a span of the gateway and one of the node,
// and each WebSocket is a span for as long as it is open. It is a module of its own, so
// that nobody else needs OpenTelemetry:
//
//	cd examples/otel && go run .
//	curl http://127.0.0.1:8080/hello
//
// The gateway's part is in gateway.go, to be copied; it is an observer and 10 lines around
// the gateway. The nodes are in node.go. Spans are printed as JSON: a service takes an
// exporter to its collector, such as otlptracehttp, in place of stdouttrace.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` of the gateway")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and then for as long as the clients need to leave, 5 s at most.
func run(ctx context.Context, listen string) error {
	var backends []*balancer.Backend
	for _, name := range []string{"node-a", "node-b"} {
		tracer, flush, err := newTracer(name)
		if err != nil {
			return err
		}
		defer flush()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go http.Serve(ln, node(name, tracer)) // ends with the process
		b, err := balancer.NewBackend(name, "http://"+ln.Addr().String(), 1)
		if err != nil {
			return err
		}
		backends = append(backends, b)
	}
	pool, err := balancer.NewPool(nil, backends...)
	if err != nil {
		return err
	}
	tracer, flush, err := newTracer("gateway")
	if err != nil {
		return err
	}
	defer flush()
	gateway, err := limpet.NewGateway(pool, &limpet.Options{Rewrite: propagate})
	if err != nil {
		return err
	}
	gateway.Observe(observer(tracer))
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("listening at http://%s", ln.Addr())
	srv := &http.Server{Handler: traced(tracer, gateway), ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}

// newTracer returns the tracer of a service, which prints its spans to standard output, and
// a function that prints those that have ended and are still kept.
func newTracer(service string) (tracer trace.Tracer, flush func(), err error) {
	exporter, err := stdouttrace.New()
	if err != nil {
		return nil, nil, fmt.Errorf("exporter: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(time.Second)),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(service))),
	)
	flush = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Print(err)
		}
	}
	return provider.Tracer("github.com/limpet-go/limpet/examples/otel"), flush, nil
}
