// A name server for the cluster: Services by name, and nothing else.
//
// It answers what https://github.com/kubernetes/dns/blob/master/docs/specification.md says of A records: the address of a Service, the
// addresses of a headless one's ready endpoints, and an endpoint by its host name. There are no SRV, PTR or outside names: a pod here
// asks for its neighbours.
package main

import (
	"flag"
	"log"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	zone       = ".svc.cluster.local."
	ttl        = 5  // seconds: how long a pod may believe in an endpoint that is gone
	mostAnswer = 20 // addresses: what fits into 512 bytes (RFC 1035 §2.3.4)
)

type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// find tells the addresses behind a name, and whether there is such a name at all.
func (n names) find(name string) ([]netip.Addr, bool) {
	labelled, inZone := strings.CutSuffix(strings.ToLower(name), zone)
	parts := strings.Split(labelled, ".")
	if !inZone || len(parts) < 2 || len(parts) > 3 {
		return nil, false
	}
	hostname := ""
	if len(parts) == 3 {
		hostname, parts = parts[0], parts[1:]
	}
	service, err := n.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, false
	}
	if service.Spec.ClusterIP != core.ClusterIPNone {
		address, err := netip.ParseAddr(service.Spec.ClusterIP)
		return []netip.Addr{address}, err == nil && hostname == ""
	}
	found := n.endpoints(parts[1], parts[0], hostname)
	return found, hostname == "" || len(found) > 0
}

func (n names) endpoints(namespace, service, hostname string) []netip.Addr {
	owned := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service})
	slices, err := n.slices.EndpointSlices(namespace).List(owned)
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			named := hostname == "" || endpoint.Hostname != nil && *endpoint.Hostname == hostname
			if address, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil && ready && named {
				found = append(found, address)
			}
		}
	}
	return found
}

// reply makes the answer to one packet, or nothing if the packet is no question.
func (n names) reply(packet []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	addresses, exists := n.find(question.Name.String())
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{question},
	}
	if !exists {
		answer.RCode = dnsmessage.RCodeNameError
	}
	for _, address := range addresses[:min(len(addresses), mostAnswer)] {
		if question.Type == dnsmessage.TypeA && address.Is4() && exists {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: ttl},
				Body:   &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// serveNames answers on UDP until it is killed. It starts to listen when it knows all Services, so that no name is denied too early.
func serveNames() error {
	listen := flag.String("listen", "127.0.0.1:53", "address and port")
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	watched := informers.NewSharedInformerFactory(client, 0)
	n := names{watched.Core().V1().Services().Lister(), watched.Discovery().V1().EndpointSlices().Lister()}
	forever := make(chan struct{})
	watched.Start(forever)
	watched.WaitForCacheSync(forever)

	socket, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	log.Printf("names of %s are answered on %s", zone, *listen)
	packet := make([]byte, 4096)
	for {
		length, client, err := socket.ReadFrom(packet)
		if err != nil {
			return err
		}
		if answer := n.reply(packet[:length]); answer != nil {
			_, _ = socket.WriteTo(answer, client)
		}
	}
}
