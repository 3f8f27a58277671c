{{/* The environment of a service, by name: (dict "root" "name" "settings"). */}}
{{- define "echomesh.environment" -}}
{{- $values := .root.Values -}}
{{- $own := include "echomesh.values" . | fromYaml -}}
{{- $facts := include "echomesh.services" . | fromYaml -}}
{{- $mine := get $facts .name -}}
{{- $ports := include "echomesh.ports" . | fromYaml -}}
{{- $prefix := printf "ECHOMESH_%s_" (upper .name) -}}
{{- range $listener := list "public" "mesh" "metrics" "health" }}
{{- if or $mine.public (ne $listener "public") }}
{{ $prefix }}{{ upper $listener }}_ADDRESS: {{ printf "0.0.0.0:%v" (get $ports $listener) | quote }}
{{- end }}
{{- end }}
{{- range $peer := sortAlpha $mine.calls }}
ECHOMESH_{{ upper $peer }}_TARGET: {{ printf "dns:///%s" (include "echomesh.address" (dict "root" $.root "name" $peer "listener" "mesh")) | quote }}
{{- end }}
ECHOMESH_LOG_LEVEL: {{ $values.logLevel }}
ECHOMESH_TRUST_DIR: /keys
{{- include "echomesh.meshTlsEnvironment" . }}
ECHOMESH_DRAIN_S: {{ $values.drainSeconds | int | quote }}
ECHOMESH_STOP_GRACE_S: {{ $values.stopGraceSeconds | int | quote }}
ECHOMESH_CONNECTION_AGE_S: {{ $values.connectionAgeSeconds | int | quote }}
{{- with $values.tracing.endpoint }}
ECHOMESH_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- if $mine.public }}
{{- if $values.public.tls.secretName }}
ECHOMESH_PUBLIC_TLS_CERT: /tls/tls.crt
ECHOMESH_PUBLIC_TLS_KEY: /tls/tls.key
{{- else }}
ECHOMESH_PUBLIC_PLAINTEXT: "true"
{{- end }}
{{- end }}
{{- if $mine.database }}
{{ $prefix }}DATABASE_URL_FILE: /keys/{{ .name }}-app-url
{{ $prefix }}JOBS_DATABASE_URL_FILE: /keys/{{ .name }}-jobs-url
{{ $prefix }}DATABASE_DIRECT_URL_FILE: /keys/{{ .name }}-{{ ternary "direct" "jobs" $values.database.pooled }}-url
{{- end }}
{{- $settings := merge (dict) $own.settings (default (dict) .settings) $values.settings -}}
{{- range $setting, $value := $settings }}
{{ $prefix }}{{ upper $setting }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}

{{/* Entries of the Secrets that a container of a service may see: (dict "root" "name"). */}}
{{- define "echomesh.keyVolume" -}}
{{- $mine := get (include "echomesh.services" . | fromYaml) .name -}}
name: keys
projected:
  # Only what this service needs; a pod waits until it has been made.
  defaultMode: 0440
  sources:
    - secret:
        name: {{ include "echomesh.keysSecret" .root }}
        items:
          - {key: {{ .name }}.key, path: {{ .name }}.key}
          - {key: trust.json, path: trust.json}
          {{- if eq .name "auth" }}
          - {key: wrapping.key, path: wrapping.key}
          {{- end }}
    {{- if $mine.database }}
    - secret:
        name: {{ include "echomesh.databaseSecret" .root }}
        items:
          - {key: {{ .name }}-app-url, path: {{ .name }}-app-url}
          - {key: {{ .name }}-jobs-url, path: {{ .name }}-jobs-url}
          {{- if .root.Values.database.pooled }}
          - {key: {{ .name }}-direct-url, path: {{ .name }}-direct-url}
          {{- end }}
    {{- end }}
    {{- range .secrets }}
    {{- if .name }}
    - secret:
        name: {{ .name }}
        items: [{key: {{ .key }}, path: {{ .path }}}]
    {{- end }}
    {{- end }}
{{- end }}

{{- define "echomesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "echomesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "echomesh.pullSecrets" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The pod of a service: (dict "root" "name" "settings" "secrets" "apiToken" "volumes" "volumeMounts" "data"). */}}
{{- define "echomesh.pod" -}}
{{- $values := .root.Values -}}
{{- $own := include "echomesh.values" . | fromYaml -}}
{{- $mine := get (include "echomesh.services" . | fromYaml) .name -}}
{{- $ports := include "echomesh.ports" . | fromYaml -}}
{{- $tls := and $mine.public $values.public.tls.secretName -}}
metadata:
  labels:
    {{- include "echomesh.labels" . | nindent 4 }}
    {{- with $own.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with $own.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "echomesh.name" . }}
  automountServiceAccountToken: {{ default false .apiToken }}
  {{- include "echomesh.pullSecrets" . | nindent 2 }}
  {{- with $own.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  enableServiceLinks: false
  # So that the service is no process 1: signals work from its first moment, and orphans are reaped.
  shareProcessNamespace: true
  terminationGracePeriodSeconds: {{ add $values.drainSeconds $values.stopGraceSeconds 10 }}
  securityContext:
    {{- include "echomesh.podSecurity" . | nindent 4 }}
  {{- if $mine.database }}
  initContainers:
    - name: migrate
      image: {{ include "echomesh.image" . | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: [migrate]
      env:
        - {name: ECHOMESH_{{ upper .name }}_DATABASE_DIRECT_URL_FILE, value: /owner/{{ .name }}-owner-url}
        - {name: ECHOMESH_{{ upper .name }}_DATABASE_WAIT_S, value: {{ $values.database.waitSeconds | int | quote }}}
      securityContext:
        {{- include "echomesh.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      volumeMounts:
        # The owner's password is for migrations alone.
        - {name: owner, mountPath: /owner, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "echomesh.image" . | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      # Here and in no ConfigMap: pods of the release before may start again during an upgrade, and
      # must not read settings that only their successors know. A changed setting is a new pod.
      # Kubernetes reads $(NAME) as another entry, and $$ as $.
      env:
        {{- range $key, $value := include "echomesh.environment" . | fromYaml }}
        - {name: {{ $key }}, value: {{ $value | replace "$" "$$" | quote }}}
        {{- end }}
        {{- with $own.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range $listener, $port := $ports }}
        {{- if or $mine.public (ne $listener "public") }}
        - {name: {{ $listener }}, containerPort: {{ $port }}}
        {{- end }}
        {{- end }}
      # Health is the service's own and follows no dependency.
      startupProbe:
        grpc: {port: {{ $ports.health }}}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ div (add $own.startSeconds 1) 2 }}
      readinessProbe:
        grpc: {port: {{ $ports.health }}}
        periodSeconds: 3
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        grpc: {port: {{ $ports.health }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
        # What does not answer has nothing to bring to an end.
        terminationGracePeriodSeconds: 5
      securityContext:
        {{- include "echomesh.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml (default $own.resources .resources) | nindent 8 }}
      volumeMounts:
        - {name: keys, mountPath: /keys, readOnly: true}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        {{- if $tls }}
        - {name: tls, mountPath: /tls, readOnly: true}
        {{- end }}
        {{- if $values.meshTls.mode }}
        - {name: mesh-tls, mountPath: /mesh-tls, readOnly: true}
        {{- end }}
        {{- with concat (default list .volumeMounts) $own.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - {{- include "echomesh.keyVolume" . | nindent 6 }}
    {{- if $mine.database }}
    - name: owner
      secret:
        secretName: {{ include "echomesh.databaseSecret" .root }}
        defaultMode: 0440
        items: [{key: {{ .name }}-owner-url, path: {{ .name }}-owner-url}]
    {{- end }}
    - {name: tmp, emptyDir: {}}
    {{- if ne .data "claim" }}
    - {name: data, emptyDir: {}}
    {{- end }}
    {{- if $tls }}
    - {name: tls, secret: {secretName: {{ $values.public.tls.secretName }}, defaultMode: 0440}}
    {{- end }}
    {{- if $values.meshTls.mode }}
    - {{- include "echomesh.meshTlsVolume" . | nindent 6 }}
    {{- end }}
    {{- with concat (default list .volumes) $own.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if $own.topologySpread }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "echomesh.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with $own.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
