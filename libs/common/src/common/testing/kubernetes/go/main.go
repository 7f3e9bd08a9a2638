// One binary that is every program of a small Kubernetes: the name it is called by picks the program.
//
// The programs share nearly all of their code, so one link step and one file stand for eight.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	_ "time/tzdata" // CronJobs may name a time zone, and a small machine has none

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// servers are the programs that are one cobra command each. The commands are made on demand: making one registers its flags globally.
var servers = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	switch server, known := servers[name]; {
	case known:
		os.Exit(cli.Run(server()))
	case name == "kubectl":
		kubectlutil.CheckErr(cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()))
	case name == "etcd":
		etcdmain.Main(os.Args)
	case name == "cluster-dns":
		log.Fatal(serveNames())
	default:
		fmt.Fprintf(os.Stderr, "%s is no program of this binary: call it kubectl, etcd, kubelet, kube-… or cluster-dns by a symbolic link\n", name)
		os.Exit(2)
	}
}
