# The stand-in itself: what the cases of the scripts lean on.

function Connect-Test { $null = Add-Contoso; Set-StandInConnection -TenantId $kit.TenantId; Get-StandInTenant }
function Get-Last { @(Get-StandInCall)[-1] }

Test-Case 'stand-in: the cmdlets of a tenant come with a connection and go with it' {
    $null = Add-Contoso
    Assert-Equal @(Get-Command -Name 'Get-InboundConnector' -ErrorAction SilentlyContinue).Count 0 'none before'
    Connect-ExchangeOnline -ShowBanner:$false
    Assert-Equal @(Get-InboundConnector).Count 0 'there with a connection'
    Disconnect-ExchangeOnline -Confirm:$false
    Assert-Equal @(Get-Command -Name 'Get-InboundConnector' -ErrorAction SilentlyContinue).Count 0 'gone with it'
}

Test-Case 'stand-in: a refusal does not stop a caller who forgets -ErrorAction Stop, and does stop one who gives it' {
    $null = Connect-Test
    $ErrorActionPreference = 'Stop'
    $went = $false
    New-InboundConnector -Name 'a' -SenderDomains '*' -ConnectorType OnPremises -CloudServicesMailEnabled $true -TreatMessagesAsInternal $true 2>$null
    $went = $true
    Assert-That $went 'the caller''s preference is not seen'
    Assert-That ((Get-Last).Outcome -match 'TreatMessagesAsInternal') 'it was refused'
    Assert-Fail { New-InboundConnector -Name 'a' -SenderDomains '*' -ConnectorType OnPremises -CloudServicesMailEnabled $true -TreatMessagesAsInternal $true -ErrorAction Stop } 'TreatMessagesAsInternal' 'it stops'
}

Test-Case 'stand-in: the caller''s $WhatIfPreference is not seen, -WhatIf is; what would ask fails' {
    $tenant = Connect-Test
    $WhatIfPreference = $true
    New-OutboundConnector -Name 'a' -ErrorAction Stop | Out-Null
    Assert-Equal $tenant.Outbound.Count 1 'it was made all the same'
    $WhatIfPreference = $false
    New-OutboundConnector -Name 'b' -WhatIf -ErrorAction Stop
    Assert-Equal $tenant.Outbound.Count 1 '-WhatIf makes nothing'
    foreach ($block in @({ Remove-OutboundConnector -Identity 'a' }, { Set-OutboundConnector -Identity 'a' -Enabled $false -Confirm }, { Disconnect-ExchangeOnline })) { Assert-Fail $block 'ask for confirmation' 'it would ask' }
    Assert-Equal $tenant.Outbound.Count 1 'and changes nothing'
}

# What is refused: the call, and what the refusal says.
$refused = @(
    @({ New-OutboundConnector -Name 'x' -UseMXRecord $false -ErrorAction Stop }, 'SmartHosts'),
    @({ Set-OutboundConnector -Identity 'To' -UseMXRecord $false -ErrorAction Stop }, 'SmartHosts'),
    @({ New-OutboundConnector -Name 'x' -TlsSettings DomainValidation -ErrorAction Stop }, 'TlsDomain'),
    @({ New-OutboundConnector -Name 'x' -AllAcceptedDomains $true -ErrorAction Stop }, 'OnPremises'),
    @({ New-OutboundConnector -Name 'to' -ErrorAction Stop }, 'already in use'),
    @({ New-OutboundConnector -Name ('x' * 65) -ErrorAction Stop }, '64'),
    @({ New-OutboundConnector -Name 'x' -ConnectorType 'Internal' -ErrorAction Stop }, 'Partner, OnPremises'),
    @({ New-OutboundConnector -Name 'x' -Enabled 'True' -ErrorAction Stop }, 'Boolean'),
    @({ New-OutboundConnector -Name 'x' -Port 25 -ErrorAction Stop }, 'Port'),
    @({ Remove-OutboundConnector -Identity 'To' -Confirm:$false -ErrorAction Stop }, 'used by the rule'),
    @({ New-InboundConnector -Name 'x' -SenderDomains @() -ErrorAction Stop }, 'SenderDomains'),
    @({ New-InboundConnector -Name 'x' -SenderDomains '*' -TreatMessagesAsInternal $true -ErrorAction Stop }, 'Partner'),
    @({ New-InboundConnector -Name 'x' -SenderDomains '*' -EFSkipIPs '192.168.1.1' -ErrorAction Stop }, '1918'),
    @({ Set-InboundConnector -Identity 'absent' -Enabled $true -ErrorAction Stop }, 'couldn''t be found'),
    @({ New-TransportRule -Name 'x' -RouteMessageOutboundConnector 'absent' -ErrorAction Stop }, 'couldn''t be found'),
    @({ New-TransportRule -Name 'x' -FromMemberOf 'absent@contoso.com' -ErrorAction Stop }, 'couldn''t be found'),
    @({ New-TransportRule -Name 'x' -Comments ('c' * 1025) -ErrorAction Stop }, '1024'),
    @({ New-TransportRule -Name 'x' -HeaderContainsMessageHeader 'X-A' -ErrorAction Stop }, 'together'),
    @({ New-TransportRule -Name 'x' -SetHeaderName 'X-A' -ErrorAction Stop }, 'together'),
    @({ New-TransportRule -Name 'x' -Priority 2 -ErrorAction Stop }, 'between 0 and 1'),
    @({ New-TransportRule -Name 'x' -ExceptIfMessageTypeMatches 'OOF', 'Calendaring' -ErrorAction Stop }, 'String'),
    @({ New-TransportRule -Name 'x' -ExceptIfMessageSizeOver 'large' -ErrorAction Stop }, 'not a size'),
    @({ Set-TransportRule -Identity 'Rule' -SetHeaderName $null -SetHeaderValue 'a' -ErrorAction Stop }, 'together'),
    @({ Set-TransportRule -Identity 'Rule' -Mode 'Test' -ErrorAction Stop }, 'AuditAndNotify'),
    @({ Set-ArcConfig -Identity Default -ArcTrustedSealers '' -ErrorAction Stop }, 'empty'),
    @({ Set-ArcConfig -Identity Default -ArcTrustedSealers 'not a domain' -ErrorAction Stop }, 'not a domain'),
    @({ Get-MessageTraceV2 -StartDate ([datetime]::UtcNow.AddDays(-11)) -EndDate ([datetime]::UtcNow) -ErrorAction Stop }, '10 days'),
    @({ Get-MessageTraceV2 -StartDate ([datetime]::UtcNow.AddDays(-95)) -EndDate ([datetime]::UtcNow.AddDays(-90)) -ErrorAction Stop }, '90 days'),
    @({ Get-MessageTraceV2 -ResultSize 5001 -ErrorAction Stop }, '5000'),
    @({ Get-MessageTraceV2 -StartDate ([datetime]::UtcNow) -ErrorAction Stop }, 'together')
)
Test-Case 'stand-in: what the service refuses is refused, and leaves the tenant as it was' {
    $null = Connect-Test
    New-OutboundConnector -Name 'To' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Rule' -RouteMessageOutboundConnector 'To' -ErrorAction Stop | Out-Null
    $before = Get-StandInSnapshot
    foreach ($row in $refused) {
        Assert-Fail $row[0] $row[1] "$($row[0])"
        Assert-Equal (Get-StandInSnapshot) $before "$($row[0]): nothing is left behind"
    }
}

Test-Case 'stand-in: how values read back' {
    $tenant = Connect-Test
    New-InboundConnector -Name 'a' -SenderDomains '*' -ErrorAction Stop | Out-Null
    Assert-Equal @((Get-InboundConnector).SenderDomains) @('smtp:*;1') 'SenderDomains'
    New-OutboundConnector -Name 'hidden' -TestMode $true -ErrorAction Stop | Out-Null
    Assert-Equal @(Get-OutboundConnector).Count 0 'test mode is hidden'
    Assert-Equal @(Get-OutboundConnector -IncludeTestModeConnectors $true).Count 1 'and shown when asked'
    Assert-Equal @((Get-OutboundConnector -IncludeTestModeConnectors $true).TlsDomain) @('') 'unset text'
    $tenant.UnsetText = $null
    Assert-That ($null -eq (Get-OutboundConnector -IncludeTestModeConnectors $true).TlsDomain) 'unset text as nothing'
    $local = [datetime]::SpecifyKind([datetime]'2026-05-06T14:00:00', 'Utc').ToLocalTime()
    Set-OutboundConnector -Identity 'hidden' -LastValidationTimestamp $local -ErrorAction Stop
    Assert-Equal $tenant.Outbound[0].LastValidationTimestamp.ToString('s') '2026-05-06T14:00:00' 'dates are UTC'
    foreach ($name in 'one', 'two') { New-TransportRule -Name $name -PrependSubject 'x' -ErrorAction Stop | Out-Null }
    New-TransportRule -Name 'first' -PrependSubject 'x' -Priority 0 -Enabled $false -ErrorAction Stop | Out-Null
    Assert-Equal @(Get-TransportRule | ForEach-Object { "$($_.Priority) $($_.Name) $($_.State) $($_.Mode)" }) @('0 first Disabled Enforce', '1 one Enabled Enforce', '2 two Enabled Enforce') 'priorities shift'
    Remove-TransportRule -Identity 'one' -Confirm:$false -ErrorAction Stop
    Assert-Equal @(Get-TransportRule | ForEach-Object { "$($_.Priority) $($_.Name)" }) @('0 first', '1 two') 'and close up'
    $shown = Get-TransportRule -Identity 'two'
    $shown.Name = 'changed'
    Assert-Equal @(Get-TransportRule -Identity 'two').Count 1 'what is handed out is a copy'
    Set-ArcConfig -Identity Default -ArcTrustedSealers 'a.example', 'b.example' -ErrorAction Stop
    Assert-Equal (Get-ArcConfig).ArcTrustedSealers 'a.example,b.example' 'the ARC list is one text'
    Set-ArcConfig -Identity Default -ArcTrustedSealers ' ' -ErrorAction Stop
    Assert-Equal (Get-ArcConfig).ArcTrustedSealers '' 'a blank empties it'
}

Test-Case 'stand-in: validation stamps nothing; the trace is limited to 100 queries in five minutes' {
    $tenant = Connect-Test
    New-OutboundConnector -Name 'To' -ErrorAction Stop | Out-Null
    Assert-Equal @(Validate-OutboundConnector -Identity 'To' -Recipients 'a@contoso.com' -Confirm:$false -ErrorAction Stop | ForEach-Object { $_.IsTaskSuccessful }) @('True', 'True') 'two tests'
    Assert-Equal $tenant.Outbound[0].IsValidated 'False' 'no stamp'
    Assert-Equal @(Get-MessageTraceV2 | ForEach-Object { $_.SenderAddress }) @('O365ConnectorValidation@contoso.com') 'the test mail'
    foreach ($i in 2..100) { $null = Get-MessageTraceV2 -ErrorAction Stop }
    Assert-Fail { Get-MessageTraceV2 -ErrorAction Stop } 'Too many requests' 'query 101'
}

Test-Case 'stand-in: a fault is raised once, at its call, before or after the effect' {
    $tenant = Connect-Test
    Set-StandInFault -Cmdlet 'New-OutboundConnector' -Call 2 -When Before
    Set-StandInFault -Cmdlet 'New-OutboundConnector' -Call 3 -When After
    New-OutboundConnector -Name 'a' -ErrorAction Stop | Out-Null
    Assert-Fail { New-OutboundConnector -Name 'b' -ErrorAction Stop } 'server side error' 'the second call'
    Assert-Fail { New-OutboundConnector -Name 'c' -ErrorAction Stop } 'server side error' 'the third call'
    New-OutboundConnector -Name 'd' -ErrorAction Stop | Out-Null
    Assert-Equal @($tenant.Outbound | ForEach-Object { $_.Name }) @('a', 'c', 'd') 'what took effect'
}

Test-Case 'stand-in: several tenants; cmdlets go to the youngest session, those with a prefix to theirs' {
    $null = Add-Contoso
    $null = Add-StandInTenant -TenantId $foreign -Organization 'fabrikam.onmicrosoft.com' -User 'admin@fabrikam.com' -AcceptedDomains 'fabrikam.com'
    Set-StandInConnection -TenantId $foreign -Prefix 'Fab'
    Set-StandInConnection -TenantId $kit.TenantId
    Assert-Equal @((Get-OrganizationConfig).Name, (Get-FabOrganizationConfig).Name) @('contoso.onmicrosoft.com', 'fabrikam.onmicrosoft.com') 'both'
    Set-StandInConnection -TenantId $foreign
    Assert-Equal (Get-OrganizationConfig).Name 'fabrikam.onmicrosoft.com' 'the youngest'
}
