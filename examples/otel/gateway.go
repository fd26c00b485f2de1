package main

import (
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// traceContext reads and writes the field traceparent (W3C Trace Context).
var traceContext propagation.TraceContext

// traced begins a span for each request, as a part of the client's trace if it has one. The
// names of attributes are those of the semantic conventions for HTTP servers. The query
// isn't among them: it may have the ID of a session.
//
// The handler of otelhttp would do the same, but it wraps the body of each request, and the
// gateway holds answers back that begin before the end of such a body.
func traced(tracer trace.Tracer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := traceContext.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		method := method(r.Method)
		ctx, span := tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			semconv.HTTPRequestMethodKey.String(method), semconv.URLPath(r.URL.Path), semconv.URLScheme("http"),
			semconv.ServerAddress(r.Host), semconv.NetworkProtocolVersion(strconv.Itoa(r.ProtoMajor)+"."+strconv.Itoa(r.ProtoMinor)),
		))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// method returns the method as the conventions want it: there must not be a name of spans
// for whatever clients send.
func method(name string) string {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT":
		return name
	}
	return "_OTHER"
}

// propagate is the Rewrite of the gateway: the node's span becomes a child of the gateway's.
func propagate(in, out *http.Request) {
	traceContext.Inject(in.Context(), propagation.HeaderCarrier(out.Header))
}

// observer tells the span of a request what has become of it, and makes one for each tunnel.
func observer(tracer trace.Tracer) limpet.Observer {
	return limpet.Observer{
		Request: func(rec *limpet.Record) {
			span := trace.SpanFromContext(rec.Request.Context())
			span.SetAttributes(
				semconv.ClientAddress(rec.ClientIP.String()),
				attribute.String("limpet.source", rec.Source.String()), attribute.Int("limpet.attempts", len(rec.Attempts)),
			)
			if rec.Source != limpet.SourceNone {
				span.SetAttributes(semconv.HTTPResponseStatusCode(rec.Status))
			}
			if rec.Backend != nil {
				span.SetAttributes(attribute.String("limpet.backend", rec.Backend.ID()))
			}
			if rec.Outcome != "" {
				span.SetAttributes(attribute.String("limpet.pin", rec.Outcome))
			}
			for _, a := range rec.Attempts {
				if a.Err != nil {
					span.AddEvent("attempt failed", trace.WithAttributes(
						attribute.String("limpet.backend", a.Backend.ID()), semconv.ExceptionMessage(a.Err.Error()),
					))
				}
			}
			switch {
			case rec.Status >= 500:
				span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(rec.Status)))
				span.SetStatus(codes.Error, "")
			case rec.Broken:
				span.SetAttributes(semconv.ErrorTypeKey.String("broken"))
				span.SetStatus(codes.Error, "the answer broke off")
			}
		},
		Opened: func(rec *limpet.Record, t *upgrade.Tunnel) {
			_, span := tracer.Start(rec.Request.Context(), "tunnel", trace.WithAttributes(attribute.String("limpet.backend", rec.Backend.ID())))
			t.OnClosed(func(s upgrade.Summary) {
				span.SetAttributes(
					attribute.String("limpet.closed_by", s.By.String()), attribute.Int("limpet.close_code", s.Code),
					attribute.Int64("limpet.messages_to_client", s.MessagesToClient), attribute.Int64("limpet.messages_to_backend", s.MessagesToBackend),
				)
				if s.Err != nil {
					span.SetStatus(codes.Error, s.Err.Error())
				}
				span.End()
			})
		},
	}
}
