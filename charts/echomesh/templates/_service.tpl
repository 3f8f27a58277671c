{{/*
All objects of a service: (dict "root" $ "name" "routing"), and where it differs from the others:
settings (by name), secrets (name, key, path under /keys), volumes, volumeMounts, resources, strategy,
apiToken where it speaks to the API server, and stateful: `claim` for a volume, or `empty`.
*/}}
{{- define "echomesh.service" -}}
{{- $own := include "echomesh.values" . | fromYaml -}}
{{- $mine := get (include "echomesh.services" . | fromYaml) .name -}}
{{- $scaled := or $own.autoscaling.enabled $own.keda.enabled -}}
{{- $kind := ternary "StatefulSet" "Deployment" (not (empty .stateful)) -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
  {{- with $own.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
# Without an address of its own, so that a name gives every ready pod and clients balance over them.
apiVersion: v1
kind: Service
metadata:
  name: {{ include "echomesh.name" . }}-mesh
  labels: {{- include "echomesh.labels" . | nindent 4 }}
    echomesh/listener: mesh
spec:
  clusterIP: None
  selector: {{- include "echomesh.selector" . | nindent 4 }}
  ports:
    {{- range $listener := list "mesh" "metrics" }}
    {{- $port := get (include "echomesh.ports" $ | fromYaml) $listener }}
    - {name: {{ ternary "grpc-mesh" $listener (eq $listener "mesh") }}, port: {{ $port }}, targetPort: {{ $listener }}{{ ternary (printf ", appProtocol: %s" (ternary "https" "kubernetes.io/h2c" (not (empty $.root.Values.meshTls.mode)))) "" (eq $listener "mesh") }}}
    {{- end }}
---
{{- if $mine.public }}
{{- $port := (include "echomesh.ports" . | fromYaml).public }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
    echomesh/listener: public
spec:
  selector: {{- include "echomesh.selector" . | nindent 4 }}
  ports:
    - name: {{ ternary "http" "grpc" (default false $mine.http) }}
      port: {{ $port }}
      targetPort: public
      appProtocol: {{ ternary "https" (ternary "http" "kubernetes.io/h2c" (default false $mine.http)) (not (empty .root.Values.public.tls.secretName)) }}
---
{{- end }}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ ternary 1 $own.replicas (not (empty .stateful)) }}
  {{- end }}
  revisionHistoryLimit: 3
  selector:
    matchLabels: {{- include "echomesh.selector" . | nindent 6 }}
  {{- if .stateful }}
  serviceName: {{ include "echomesh.name" . }}-mesh
  podManagementPolicy: Parallel
  {{- else }}
  strategy:
    rollingUpdate: {{- toYaml (default $own.strategy .strategy) | nindent 6 }}
  {{- end }}
  template: {{- include "echomesh.pod" (merge (dict "data" (ternary "claim" "empty" (eq (default "" .stateful) "claim"))) .) | nindent 4 }}
  {{- if eq (default "" .stateful) "claim" }}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {{- include "echomesh.claim" $own.persistence | nindent 8 }}
  {{- end }}
{{- if $own.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
spec:
  {{- if ne (toString $own.podDisruptionBudget.maxUnavailable) "" }}
  maxUnavailable: {{ $own.podDisruptionBudget.maxUnavailable }}
  {{- else }}
  minAvailable: {{ $own.podDisruptionBudget.minAvailable }}
  {{- end }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "echomesh.selector" . | nindent 6 }}
{{- end }}
{{- include "echomesh.scaling" (dict "context" . "own" $own "kind" $kind) }}
{{- end }}

{{/* What scales a service: the cluster's own autoscaler, or KEDA. */}}
{{- define "echomesh.scaling" -}}
{{- $name := include "echomesh.name" .context -}}
{{- if and .own.autoscaling.enabled .own.keda.enabled -}}
{{- fail (printf "%s: autoscaling and keda exclude each other" .context.name) -}}
{{- end -}}
{{- if .own.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels: {{- include "echomesh.labels" .context | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ $name }}}
  minReplicas: {{ .own.autoscaling.minReplicas }}
  maxReplicas: {{ .own.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .own.autoscaling.cpuPercent }}}
  behavior:
    # Pods that end serve their streams first: not many at once.
    scaleDown: {policies: [{type: Pods, value: 1, periodSeconds: 60}]}
{{- else if .own.keda.enabled }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  labels: {{- include "echomesh.labels" .context | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ $name }}}
  minReplicaCount: {{ .own.keda.minReplicas }}
  maxReplicaCount: {{ .own.keda.maxReplicas }}
  triggers: {{- toYaml .own.keda.triggers | nindent 4 }}
{{- end }}
{{- end }}

{{/* The spec of a PersistentVolumeClaim. */}}
{{- define "echomesh.claim" -}}
accessModes: {{ toJson (default (list "ReadWriteOnce") .accessModes) }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}
