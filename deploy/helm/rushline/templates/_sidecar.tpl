{{/*
A node as a container of somebody's pod, beside the service that uses it:

  containers:
    - name: shop
      …
    {{- include "rushline.container" (dict "image" "rushline:0.1.0" "pauseSeconds" 5 "graceSeconds" 20 "env" $env) | nindent 4 }}

Takes a dict: image; pullPolicy; preStopSeconds, pauseSeconds, graceSeconds (the pod's terminationGracePeriodSeconds must be
their sum and ten more); startupSeconds; env (a list, as in a container); resources; volumeMounts; config (true: --config
/etc/rushline/rushline.yaml); http, grpc (ports); loopback (true: only the pod's own containers reach it).

A sidecar that only its pod reaches has no readiness of its own: the pod would leave its service whenever Redis is away. There
the shop itself says if it can do without.
*/}}
{{- define "rushline.container" -}}
{{- $http := default 36789 .http -}}
{{- $grpc := default 36790 .grpc -}}
{{- $host := ternary "127.0.0.1" "0.0.0.0" (default false .loopback) -}}
- name: rushline
  image: {{ .image | quote }}
  imagePullPolicy: {{ default "IfNotPresent" .pullPolicy }}
  args:
    - serve
    {{- if .config }}
    - --config
    - /etc/rushline/rushline.yaml
    {{- end }}
  env:
    - name: POD_IP # what goes into etcd, where registry.target is set
      valueFrom: { fieldRef: { fieldPath: status.podIP } }
    - name: RUSHLINE_SHUTDOWN_PAUSE_MS
      value: {{ mul 1000 (.pauseSeconds | int) | quote }}
    - name: RUSHLINE_SHUTDOWN_GRACE_MS
      value: {{ mul 1000 (.graceSeconds | int) | quote }}
    - name: RUSHLINE_HTTP_LISTEN
      value: {{ printf "%s:%d" $host (int $http) | quote }}
    - name: RUSHLINE_GRPC_LISTEN
      value: {{ printf "%s:%d" $host (int $grpc) | quote }}
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - { name: http, containerPort: {{ $http }} }
    - { name: grpc, containerPort: {{ $grpc }} }
  {{- if .loopback }}
  # The kubelet asks from outside the pod, where the loopback is another one: so the program asks itself.
  startupProbe:
    exec: { command: [/usr/bin/rushline, ready] }
    periodSeconds: 1
    timeoutSeconds: 3
    failureThreshold: {{ default 300 .startupSeconds }}
  {{- else }}
  startupProbe:
    httpGet: { path: /readyz, port: http }
    periodSeconds: 1
    failureThreshold: {{ default 300 .startupSeconds }}
  # Sees the store: a node whose Redis is away, or that is about to leave, gets nothing new.
  readinessProbe:
    httpGet: { path: /readyz, port: http }
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 2
  # Sees the process only: starting it again brings no Redis back.
  livenessProbe:
    httpGet: { path: /healthz, port: http }
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  {{- end }}
  {{- with .preStopSeconds }}
  # While the others of the pod still need it, or the cluster has not heard yet that the pod goes. The rest of the drain is
  # the server's own, from SIGTERM on.
  lifecycle:
    preStop:
      exec: { command: [/bin/sleep, {{ . | quote }}] }
  {{- end }}
  {{- with .resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    allowPrivilegeEscalation: false
    privileged: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  {{- with .volumeMounts }}
  volumeMounts:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
