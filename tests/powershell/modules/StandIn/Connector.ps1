# Inbound and outbound connectors.

$script:InboundDefault = [ordered]@{
    Enabled = $true; ConnectorType = 'Partner'; ConnectorSource = 'Default'; Comment = ''; SenderIPAddresses = @(); SenderDomains = @()
    TrustedOrganizations = @(); ClientHostNames = @(); AssociatedAcceptedDomains = @(); RequireTls = $false; RestrictDomainsToIPAddresses = $false
    RestrictDomainsToCertificate = $false; CloudServicesMailEnabled = $false; TreatMessagesAsInternal = $false; TlsSenderCertificateName = $null
    EFTestMode = $false; ScanAndDropRecipients = @(); EFSkipLastIP = $false; EFSkipIPs = @(); EFSkipMailGateway = @(); EFUsers = @()
}
$script:OutboundDefault = [ordered]@{
    Enabled = $true; UseMXRecord = $true; Comment = ''; ConnectorType = 'Partner'; ConnectorSource = 'Default'; RecipientDomains = @(); SmartHosts = @()
    TlsDomain = $null; TlsSettings = $null; IsTransportRuleScoped = $false; RouteAllMessagesViaOnPremises = $false; CloudServicesMailEnabled = $false
    AllAcceptedDomains = $false; SenderRewritingEnabled = $false; TestMode = $false; LinkForModifiedConnector = '00000000-0000-0000-0000-000000000000'
    ValidationRecipients = $null; IsValidated = $false; LastValidationTimestamp = $null; MtaStsMode = 'Opportunistic'; SmtpDaneMode = 'Opportunistic'
}

# Takes the given parameters into a connector. Text given as $null or '' unsets.
function Merge-StandInConnector {
    param($Stored, $Default, [hashtable]$Given)
    foreach ($key in @($Default.Keys)) {
        if (-not $Given.ContainsKey($key)) { continue }
        $value = $Given[$key]
        if ($Default[$key] -is [array]) {
            $value = Merge-StandInList -Old $Stored[$key] -New $value
            if ($key -eq 'SenderDomains') {
                $value = ConvertTo-StandInList @($value | ForEach-Object { if ($_ -match '^smtp:(.+?)(;\d+)?$') { 'smtp:' + $Matches[1] + ';1' } else { 'smtp:' + $_ + ';1' } })
            }
        } elseif ($key -eq 'ValidationRecipients') { $value = @($value) -join ',' }
        elseif ($value -is [datetime]) { $value = ConvertTo-StandInUtc $value }
        elseif ($value -is [string] -and $value -eq '' -and $null -eq $Default[$key]) { $value = $null }
        $Stored[$key] = $value
    }
    $Stored['WhenChangedUTC'] = $script:World.Clock
}

# Dates are kept in UTC; a date without a zone is taken for UTC.
function ConvertTo-StandInUtc {
    param([datetime]$Date)
    if ($Date.Kind -eq [System.DateTimeKind]::Local) { $Date = $Date.ToUniversalTime() }
    [datetime]::SpecifyKind($Date, [System.DateTimeKind]::Unspecified)
}

function Assert-StandInInbound {
    param($Stored)
    if ($Stored['CloudServicesMailEnabled'] -and $Stored['TreatMessagesAsInternal']) {
        throw (New-StandInFailure -Kind 'InboundConnectorException' -Message 'TreatMessagesAsInternal and CloudServicesMailEnabled can not both be $true')
    }
    if ($Stored['ConnectorType'] -eq 'Partner' -and $Stored['TreatMessagesAsInternal']) {
        throw (New-StandInFailure -Kind 'InboundConnectorException' -Message 'TreatMessagesAsInternal $true is not for connectors of type Partner')
    }
    if (@($Stored['SenderDomains']).Count -eq 0) {
        throw (New-StandInFailure -Kind 'InboundConnectorException' -Message 'SenderDomains must name at least one domain')
    }
    foreach ($address in @($Stored['EFSkipIPs'])) {
        if ($address -match '^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)') {
            throw (New-StandInFailure -Kind 'InboundConnectorException' -Message "EFSkipIPs: '$address' is a private address (RFC 1918), which is not supported")
        }
    }
}

function Assert-StandInOutbound {
    param($Stored, [hashtable]$Given)
    if (-not $Stored['UseMXRecord'] -and @($Stored['SmartHosts']).Count -eq 0) {
        throw (New-StandInFailure -Kind 'OutboundConnectorException' -Message 'SmartHosts is required once UseMXRecord is $false: give both in one call')
    }
    if ($Given.ContainsKey('UseMXRecord') -and -not $Given['UseMXRecord'] -and -not $Given.ContainsKey('SmartHosts')) {
        throw (New-StandInFailure -Kind 'OutboundConnectorException' -Message 'UseMXRecord $false needs SmartHosts in the same call')
    }
    if ($Stored['TlsSettings'] -eq 'DomainValidation' -and -not $Stored['TlsDomain']) {
        throw (New-StandInFailure -Kind 'OutboundConnectorException' -Message 'TlsDomain is required if TlsSettings is DomainValidation')
    }
    if ($Stored['TlsDomain'] -and $Stored['TlsSettings'] -ne 'DomainValidation') {
        throw (New-StandInFailure -Kind 'OutboundConnectorException' -Message 'TlsDomain goes with TlsSettings DomainValidation alone')
    }
    foreach ($switch in 'RouteAllMessagesViaOnPremises', 'AllAcceptedDomains') {
        if ($Stored[$switch] -and $Stored['ConnectorType'] -ne 'OnPremises') {
            throw (New-StandInFailure -Kind 'OutboundConnectorException' -Message "$switch `$true is for connectors of type OnPremises alone")
        }
    }
}

$script:Handlers['Get-InboundConnector'] = {
    param($call)
    $found = $call.Tenant.Inbound
    if ($call.Given.ContainsKey('Identity')) { $found = @(Find-StandInObject -List $found -Identity $call.Given['Identity'] -What 'inbound connector') }
    foreach ($one in $found) { Show-StandInObject -Tenant $call.Tenant -Stored $one -Text $script:ConnectorText }
}

$script:Handlers['New-InboundConnector'] = {
    param($call)
    $tenant = $call.Tenant
    Assert-StandInHydrated -Tenant $tenant
    if ($tenant.NoInbound) { throw (New-StandInFailure -Kind 'InboundConnectorException' -Message 'Inbound connectors are not allowed in a developer tenant') }
    Assert-StandInName -List $tenant.Inbound -Name $call.Given['Name'] -Self $null
    $made = New-StandInStamp -Name $call.Given['Name']
    foreach ($key in $script:InboundDefault.Keys) { $made[$key] = $script:InboundDefault[$key] }
    Merge-StandInConnector -Stored $made -Default $script:InboundDefault -Given $call.Given
    Assert-StandInInbound -Stored $made
    [void]$tenant.Inbound.Add($made)
    Show-StandInObject -Tenant $tenant -Stored $made -Text $script:ConnectorText
}

$script:Handlers['Set-InboundConnector'] = {
    param($call)
    $tenant = $call.Tenant
    $stored = Find-StandInObject -List $tenant.Inbound -Identity $call.Given['Identity'] -What 'inbound connector'
    $next = Copy-StandInStored $stored
    Merge-StandInConnector -Stored $next -Default $script:InboundDefault -Given $call.Given
    if ($call.Given.ContainsKey('Name')) {
        Assert-StandInName -List $tenant.Inbound -Name $call.Given['Name'] -Self $stored
        $next['Name'] = $call.Given['Name']
        $next['Identity'] = $call.Given['Name']
    }
    Assert-StandInInbound -Stored $next
    foreach ($key in @($next.Keys)) { $stored[$key] = $next[$key] }
}

$script:Handlers['Remove-InboundConnector'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Inbound -Identity $call.Given['Identity'] -What 'inbound connector'
    [void]$call.Tenant.Inbound.Remove($stored)
}

# A copy of what is kept, so that a refused change leaves nothing behind.
function Copy-StandInStored {
    param($Stored)
    $copy = [ordered]@{}
    foreach ($key in $Stored.Keys) {
        $copy[$key] = $Stored[$key]
        if ($Stored[$key] -is [System.Collections.IList]) { $copy[$key] = ConvertTo-StandInList $Stored[$key] }
    }
    $copy
}

$script:Handlers['Get-OutboundConnector'] = {
    param($call)
    $given = $call.Given
    $found = $call.Tenant.Outbound
    if (-not $given.ContainsKey('IncludeTestModeConnectors') -or -not $given['IncludeTestModeConnectors']) {
        $found = @($found | Where-Object { -not $_['TestMode'] })
    }
    if ($given.ContainsKey('IsTransportRuleScoped')) {
        $found = @($found | Where-Object { $_['IsTransportRuleScoped'] -eq $given['IsTransportRuleScoped'] })
    }
    if ($given.ContainsKey('Identity')) { $found = @(Find-StandInObject -List $found -Identity $given['Identity'] -What 'outbound connector') }
    foreach ($one in $found) { Show-StandInObject -Tenant $call.Tenant -Stored $one -Text $script:ConnectorText }
}

$script:Handlers['New-OutboundConnector'] = {
    param($call)
    $tenant = $call.Tenant
    Assert-StandInHydrated -Tenant $tenant
    Assert-StandInName -List $tenant.Outbound -Name $call.Given['Name'] -Self $null
    $made = New-StandInStamp -Name $call.Given['Name']
    foreach ($key in $script:OutboundDefault.Keys) { $made[$key] = $script:OutboundDefault[$key] }
    Merge-StandInConnector -Stored $made -Default $script:OutboundDefault -Given $call.Given
    Assert-StandInOutbound -Stored $made -Given $call.Given
    [void]$tenant.Outbound.Add($made)
    Show-StandInObject -Tenant $tenant -Stored $made -Text $script:ConnectorText
}

$script:Handlers['Set-OutboundConnector'] = {
    param($call)
    $tenant = $call.Tenant
    $stored = Find-StandInObject -List $tenant.Outbound -Identity $call.Given['Identity'] -What 'outbound connector'
    $next = Copy-StandInStored $stored
    Merge-StandInConnector -Stored $next -Default $script:OutboundDefault -Given $call.Given
    if ($call.Given.ContainsKey('Name')) {
        Assert-StandInName -List $tenant.Outbound -Name $call.Given['Name'] -Self $stored
        foreach ($rule in $tenant.Rules) { if ($rule['RouteMessageOutboundConnector'] -eq $stored['Name']) { $rule['RouteMessageOutboundConnector'] = $call.Given['Name'] } }
        $next['Name'] = $call.Given['Name']
        $next['Identity'] = $call.Given['Name']
    }
    Assert-StandInOutbound -Stored $next -Given $call.Given
    foreach ($key in @($next.Keys)) { $stored[$key] = $next[$key] }
}

$script:Handlers['Remove-OutboundConnector'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Outbound -Identity $call.Given['Identity'] -What 'outbound connector'
    foreach ($rule in $call.Tenant.Rules) {
        if ($rule['RouteMessageOutboundConnector'] -eq $stored['Name']) {
            throw (New-StandInFailure -Kind 'ConnectorInUseException' -Message "The connector '$($stored['Name'])' is used by the rule '$($rule['Name'])': remove or change the rule first")
        }
    }
    [void]$call.Tenant.Outbound.Remove($stored)
}

# Two tests, and a test mail for each recipient; it stamps nothing on the connector.
$script:Handlers['Validate-OutboundConnector'] = {
    param($call)
    $stored = Find-StandInObject -List $call.Tenant.Outbound -Identity $call.Given['Identity'] -What 'outbound connector'
    if (-not $stored['Enabled']) { throw (New-StandInFailure -Kind 'ValidateOutboundConnectorException' -Message 'The domain is not configured on this connector (it is not enabled)') }
    $result = $script:World.Validation
    [pscustomobject]@{ TaskName = 'Check connectivity to ' + (@($stored['SmartHosts']) -join ', '); IsTaskSuccessful = [bool]$result.Connect; Details = $result.Text }
    [pscustomobject]@{ TaskName = 'Send test email'; IsTaskSuccessful = [bool]($result.Connect -and $result.Send); Details = $result.Text }
    if ($result.Connect -and $result.Send) {
        $default = @($call.Tenant.AcceptedDomains)[0]
        foreach ($recipient in @($call.Given['Recipients'])) {
            Add-StandInTrace -TenantId $call.Tenant.TenantId -Sender "O365ConnectorValidation@$default" -Recipient $recipient -Subject 'Test email for connector validation' -Status $result.TraceStatus -Event $result.Events
        }
    }
}
