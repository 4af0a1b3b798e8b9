# The three cmdlets of the module that are there before a connection. Those of the tenant come with Connect-ExchangeOnline,
# as they do in the service, and go with the last connection.
Import-Module (Join-Path $PSScriptRoot '../StandIn/StandIn.psd1')
. ([scriptblock]::Create((Get-StandInSource -Name 'Connect-ExchangeOnline', 'Disconnect-ExchangeOnline', 'Get-ConnectionInformation')))
Export-ModuleMember -Function 'Connect-ExchangeOnline', 'Disconnect-ExchangeOnline', 'Get-ConnectionInformation'
