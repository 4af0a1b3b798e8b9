# The tenants behind the stand-in ExchangeOnlineManagement, held in memory, and what a test may do to them.
# What the cmdlets do is documented behaviour (see tests/powershell/README.md); what is not documented is not invented:
# where two behaviours are possible a test can choose (UnsetText), so that the scripts must bear both.

Set-StrictMode -Version 2.0

$script:Table = Get-Content -LiteralPath (Join-Path $PSScriptRoot '../../cmdlets.json') -Raw | ConvertFrom-Json -AsHashtable
. (Join-Path $PSScriptRoot 'Source.ps1')
. (Join-Path $PSScriptRoot 'Connection.ps1')
. (Join-Path $PSScriptRoot 'Object.ps1')
. (Join-Path $PSScriptRoot 'Connector.ps1')
. (Join-Path $PSScriptRoot 'Rule.ps1')
. (Join-Path $PSScriptRoot 'Tenant.ps1')
. (Join-Path $PSScriptRoot 'Trace.ps1')
. (Join-Path $PSScriptRoot 'Control.ps1')

$script:World = $null
$script:Functions = $null
Reset-StandIn
