# Repair-GatepostConnector: each managed property, drifted alone, is set back with one call that sets it alone.

# Object, property, what it drifted to, parameters that Exchange wants in the same call, what drifted with it.
$drifts = @(
    @('Inbound', 'Enabled', $false), @('Inbound', 'ConnectorType', 'Partner'), @('Inbound', 'SenderDomains', @('smtp:contoso.com;1')), @('Inbound', 'TlsSenderCertificateName', 'old.contoso.com'),
    @('Inbound', 'RequireTls', $false), @('Inbound', 'RestrictDomainsToCertificate', $false), @('Inbound', 'RestrictDomainsToIPAddresses', $true),
    @('Inbound', 'CloudServicesMailEnabled', $false, @('TreatMessagesAsInternal')), @('Inbound', 'AssociatedAcceptedDomains', @('contoso.com')),
    @('Outbound', 'Enabled', $false), @('Outbound', 'TestMode', $true), @('Outbound', 'ConnectorType', 'Partner'), @('Outbound', 'IsTransportRuleScoped', $false),
    @('Outbound', 'UseMXRecord', $true, @('SmartHosts')), @('Outbound', 'SmartHosts', @('mx1.gatepost.example'), @('UseMXRecord')), @('Outbound', 'TlsSettings', 'CertificateValidation', @('TlsDomain')),
    @('Outbound', 'TlsDomain', 'other.example', @('TlsSettings')), @('Outbound', 'CloudServicesMailEnabled', $false, @('TreatMessagesAsInternal')), @('Outbound', 'RecipientDomains', @('fabrikam.com')),
    @('Outbound', 'AllAcceptedDomains', $true), @('Outbound', 'SmtpDaneMode', 'Mandatory'), @('Outbound', 'RouteAllMessagesViaOnPremises', $true),
    @('Route', 'FromScope', $null), @('Route', 'RouteMessageOutboundConnector', 'Other'), @('Route', 'SetHeaderName', 'X-Other', @('SetHeaderValue')), @('Route', 'SetHeaderValue', 'guess', @('SetHeaderName')),
    @('Route', 'ExceptIfHeaderContainsMessageHeader', 'X-Other', @('ExceptIfHeaderContainsWords')), @('Route', 'ExceptIfHeaderContainsWords', @('true'), @('ExceptIfHeaderContainsMessageHeader')),
    @('Route', 'StopRuleProcessing', $false),
    @('Back', 'HeaderContainsMessageHeader', 'X-Other', @('HeaderContainsWords')), @('Back', 'HeaderContainsWords', @('true'), @('HeaderContainsMessageHeader')), @('Back', 'RemoveHeader', 'X-Other'),
    @('Back', 'StopRuleProcessing', $true), @('Back', 'Mode', 'Audit')
)
$objects = @{ Inbound = @('Inbound', 'From Gatepost'); Outbound = @('Outbound', 'To Gatepost'); Route = @('Rules', 'Route to Gatepost'); Back = @('Rules', 'Back from Gatepost') }

# All drifts in one tenant, one after the other: an installation for each would take most of the time.
foreach ($kind in 'Inbound', 'Outbound', 'Route', 'Back') {
    Test-Case "repair: every property of the object $kind, drifted alone, is set back alone; -WhatIf says so and changes nothing" -With $kind {
        param($kind)
        $null = Add-Contoso
        $null = Invoke-Good 'Install-GatepostConnector'
        Set-StandInConnection -TenantId $kit.TenantId
        New-OutboundConnector -Name 'Other' -RecipientDomains 'fabrikam.com' -ErrorAction Stop | Out-Null
        $right = Get-StandInSnapshot
        foreach ($drift in @($drifts | Where-Object { $_[0] -eq $kind })) {
            $property = $drift[1]
            $together = @()
            if ($drift.Count -gt 3) { $together = $drift[3] }
            $list, $name = $objects[$kind]
            Set-StandInProperty -Kind $list -Name $name -Property $property -Value $drift[2]
            $wrong = Get-StandInSnapshot
            Assert-That (($wrong -join '') -cne ($right -join '')) "$property drifts"
            Clear-StandInCall
            if ($property -match '^(Enabled|SmartHosts|SetHeaderValue|Mode)$') {
                $run = Invoke-Good 'Repair-GatepostConnector' -Preview
                Assert-Equal (Get-Change) @() "$property`: -WhatIf calls nothing that changes the tenant"
                Assert-Equal (Get-StandInSnapshot) $wrong "$property`: -WhatIf leaves the tenant"
                Assert-That ((Get-Action $run) -contains "${name}: WouldUpdate") "$property`: -WhatIf says what it would, found $(Get-Action $run)"
                Clear-StandInCall
            }
            $run = Invoke-Good 'Repair-GatepostConnector'
            $calls = @(Get-StandInCall -Changes)
            Assert-Equal $calls.Count 1 "$property`: one change, found $(Get-Change)"
            $set = @($calls[0].Parameters.Keys | Where-Object { 'Identity', 'Confirm', 'ErrorAction' -notcontains $_ -and $together -notcontains $_ })
            Assert-Equal $set @($property) "$property`: only it is set"
            Assert-Equal (Get-StandInSnapshot) $right "$property`: the tenant is as it was"
            $line = @($run.Results | Where-Object { $_.Name -eq $name })[0]
            Assert-That ($line.Action -eq 'Updated' -and ($line.Changes -join ' ') -match $property) "$property`: the result names it, found $($line.Changes)"
            Assert-Equal @($run.Results | Where-Object { $_.Action -ne 'Unchanged' }).Count 1 "$property`: the others are unchanged"
        }
    }
}

foreach ($row in @(@('SmartHosts', @('old.contoso.com'), 'UseMXRecord'), @('UseMXRecord', $true, 'SmartHosts'), @('TlsDomain', 'old.contoso.com', 'TlsSettings'), @('TlsSettings', 'CertificateValidation', 'TlsDomain'))) {
    Test-Case "repair: with another $($row[0]) than was validated the mark goes, in the same call, and mail of users waits for Confirm" -With $row {
        param($row)
        Add-Ready
        $outbound = (Get-StandInTenant).Outbound[0]
        Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property $row[0] -Value $row[1]
        $run = Invoke-Good 'Repair-GatepostConnector' -Preview
        Assert-That (($run.Warnings -join ' ') -match "another $($row[0]): .*Confirm-GatepostConnector\.ps1 -Again") "-WhatIf warns, found $($run.Warnings)"
        Assert-Equal $outbound.IsValidated 'True' '-WhatIf leaves it'
        $run = Invoke-Good 'Repair-GatepostConnector'
        Assert-Equal (Get-Change) @("Set-OutboundConnector -Identity -IsValidated -$((@($row[0], $row[2]) | Sort-Object) -join ' -')") 'one call'
        Assert-Equal $outbound.IsValidated 'False' 'the mark is off'
        Assert-That (($run.Warnings -join ' ') -match '-Again' -and (@($run.Results | Where-Object { $_.Name -eq 'To Gatepost' })[0].Changes -join ' ') -match "IsValidated: 'True' -> 'False'") "it is told, found $($run.Warnings)"
        Assert-Equal @($run.Results | Where-Object { $_.Name -eq 'To Gatepost' })[0].Message 'have it validated again: Confirm-GatepostConnector.ps1 -Again' 'what is next'
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Everyone' }
        Assert-That ($run.Failed -match 'is not validated') "the rollout waits, found '$($run.Failed)'"
    }
}
Test-Case 'repair: what the validation does not go by leaves its mark' {
    Add-Ready
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TestMode -Value $true
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-OutboundConnector -Identity -TestMode') 'one property'
    Assert-Equal @((Get-StandInTenant).Outbound[0].IsValidated, $run.Warnings.Count) @('True', '0') 'the mark stays'
    Assert-Equal @($run.Results | Where-Object { $_.Name -eq 'To Gatepost' })[0].Message '' 'nothing is to be validated'
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TestMode -Value $true
    $run = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal @($run.Results | Where-Object { $_.Name -eq 'To Gatepost' })[0].Message '' 'nor by Install'
}

Test-Case 'repair: a smart host in other case, in brackets or with a dot at the end is the same host: no change, and its mark stays' {
    foreach ($hosts in @('MX2.gatepost.example.', '[mx1.gatepost.example]'), @('mx1.gatepost.example.', 'Mx2.Gatepost.Example')) {
        Add-Ready
        Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property SmartHosts -Value $hosts
        foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector') { $null = Invoke-Good $script }
        Assert-Equal (Get-Change) @() "$hosts`: nothing was changed"
        Assert-Equal (Get-StandInTenant).Outbound[0].IsValidated 'True' "$hosts`: the mark"
        Reset-StandIn
    }
}

Test-Case 'repair: TreatMessagesAsInternal, which excludes CloudServicesMailEnabled, is set back with it in one call' {
    $null = Add-Installed
    $right = Get-StandInSnapshot
    Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property CloudServicesMailEnabled -Value $false
    Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property TreatMessagesAsInternal -Value $true
    $null = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-InboundConnector -CloudServicesMailEnabled -Identity -TreatMessagesAsInternal') 'one call'
    Assert-Equal (Get-StandInSnapshot) $right 'the tenant is as it was'
}

Test-Case 'repair: a clean-up rule that is disabled or in another place is enabled and moved behind the routing rule' {
    $tenant = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector'
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Other' -FromScope InOrganization -PrependSubject 'x' -Priority 1 -ErrorAction Stop | Out-Null
    Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property State -Value 'Disabled'
    foreach ($place in 0, 2) {
        Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property Priority -Value $place
        $null = Invoke-Good 'Repair-GatepostConnector'
        Assert-Equal @($tenant.Rules | ForEach-Object { "$($_.Name) $($_.State)" }) @('Route to Gatepost Disabled', 'Back from Gatepost Enabled', 'Other Enabled') "moved from place $place"
    }
}

Test-Case 'repair: what is missing is named and not made; what is not ours is refused' {
    $null = Add-Installed
    Set-StandInConnection -TenantId $kit.TenantId
    Remove-InboundConnector -Identity 'From Gatepost' -Confirm:$false -ErrorAction Stop
    Clear-StandInCall
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-That ((Get-Action $run) -contains 'From Gatepost: Missing') "it is named, found $(Get-Action $run)"
    Assert-Equal (Get-Change) @() 'nothing is made'
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property Comments -Value 'theirs'
    $run = Invoke-Script 'Repair-GatepostConnector'
    Assert-That ($run.Failed -match 'Route to Gatepost') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'nothing is changed'
}

Test-Case 'repair: a secrets file that may be older than a rule which sends mail is told, by -WhatIf too' {
    $tenant = Add-Installed
    foreach ($property in 'SetHeaderValue', 'ExceptIfHeaderContainsWords') {
        foreach ($state in 'Disabled', 'Enabled') {
            $tenant.Rules[0]['State'] = $state
            $tenant.Rules[0]['Mode'] = 'Enforce'
            if ($property -eq 'SetHeaderValue') { $tenant.Rules[0][$property] = $oldSecret } else { $tenant.Rules[0][$property] = [System.Collections.ArrayList]@($oldLoop) }
            $run = Invoke-Good 'Repair-GatepostConnector' -Preview
            Assert-Equal (($run.Warnings -join ' ') -match 'of the last rendering') ($state -eq 'Enabled') "$property, $state, found $($run.Warnings)"
            $null = Invoke-Good 'Repair-GatepostConnector'
        }
    }
}

Test-Case 'repair: without the outbound connector the routing rule is told as not looked at' {
    $tenant = Add-Installed
    $tenant.Outbound.Clear()
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Action $run) @('From Gatepost: Unchanged', 'Route to Gatepost: Skipped', 'Back from Gatepost: Unchanged', 'To Gatepost: Missing') 'the results'
}

Test-Case 'repair: hybrid and other objects are left alone, the rollout is not touched' {
    $tenant = Add-Installed
    Set-StandInConnection -TenantId $kit.TenantId
    New-InboundConnector -Name 'Inbound from 42' -SenderDomains '*' -ConnectorSource HybridWizard -ErrorAction Stop | Out-Null
    New-OutboundConnector -Name 'Outbound to 42' -RecipientDomains 'contoso.com' -ConnectorSource HybridWizard -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Other' -FromScope InOrganization -PrependSubject 'x' -ErrorAction Stop | Out-Null
    Enable-TransportRule -Identity 'Route to Gatepost' -Mode Enforce -Confirm:$false -ErrorAction Stop
    Set-TransportRule -Identity 'Route to Gatepost' -FromMemberOf $null -Confirm:$false -ErrorAction Stop
    Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property RequireTls -Value $false
    Clear-StandInCall
    $null = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-InboundConnector -Identity -RequireTls') 'one change'
    Assert-Equal @($tenant.Rules[0].State, $tenant.Rules[0].Mode, $tenant.Rules[0].FromMemberOf) @('Enabled', 'Enforce', '') 'the rollout'
}

# What a property of this type may hold, so that it counts as set.
function Get-Filling {
    param([hashtable]$Fact)
    switch -Regex ($Fact.type) {
        '^Boolean$' { return $true }
        '^ByteQuantifiedSize$' { return '1 KB (1,024 bytes)' }
        '^U?Int' { return 1 }
        '(\[\]|^MultiValued)' { return , [System.Collections.ArrayList]@('x') }
    }
    'x'
}

# What every rule has, and says nothing about the mail.
$plain = @('ActivationDate', 'Comments', 'Confirm', 'Enabled', 'ExpiryDate', 'Identity', 'Mode', 'Name', 'Priority', 'RecipientAddressType', 'RuleErrorAction', 'RuleSubType', 'SenderAddressLocation', 'SetAuditSeverity', 'StopRuleProcessing', 'UseLegacyRegex', 'WhatIf')
$conditions = '^(ADComparison|AnyOf|Attachment|BetweenMemberOf|ContentCharacterSet|ExceptIf|From|Has|Header|Manager|MessageContains|MessageSize|MessageType|Recipient|SCLOver|Sender|Sent|Subject|With)'

foreach ($name in 'Back from Gatepost', 'Route to Gatepost') {
    Test-Case "repair: whatever else '$name' could hold is taken off in one call, but what the rollout and an administrator may choose" -With $name {
        param($name)
        $tenant = Add-Installed
        $facts = (Get-Content -LiteralPath (Join-Path $PSScriptRoot '../cmdlets.json') -Raw | ConvertFrom-Json -AsHashtable).cmdlets['Set-TransportRule'].parameters
        $rule = @($tenant.Rules | Where-Object { $_['Name'] -eq $name })[0]
        $route = $name -match '^Route'
        $right = Get-StandInSnapshot
        $expected = @()
        $left = @()
        foreach ($key in @($facts.Keys | Sort-Object)) {
            if ($plain -contains $key -or $null -ne $rule[$key]) { continue }
            $rule[$key] = Get-Filling $facts[$key]
            # Another scope than its exception, which would leave nothing.
            if ($key -eq 'SentToScope') { $rule[$key] = 'NotInOrganization' }
            $isChosen = $route -and ($key -match $conditions -or $key -eq 'RouteMessageOutboundRequireTls')
            if ($isChosen) { $left += $key } else { $expected += $key }
        }
        Assert-That ($expected.Count -gt $(if ($route) { 25 } else { 130 })) "many properties, found $($expected.Count)"
        $wrong = Get-StandInSnapshot
        $run = Invoke-Good 'Repair-GatepostConnector' -Preview
        Assert-Equal (Get-StandInSnapshot) $wrong '-WhatIf leaves the tenant'
        $would = @($run.Results | Where-Object { $_.Name -eq $name })[0]
        Assert-Equal $would.Action 'WouldUpdate' '-WhatIf says so'
        Clear-StandInCall
        $null = Invoke-Good 'Repair-GatepostConnector'
        $calls = @(Get-StandInCall -Changes)
        Assert-Equal $calls.Count 1 "one change, found $(Get-Change)"
        Assert-Equal @($calls[0].Parameters.Keys | Where-Object { 'Identity', 'Confirm', 'ErrorAction' -notcontains $_ } | Sort-Object) $expected 'what is taken off'
        foreach ($key in $left) { $rule[$key] = $null }
        foreach ($key in $expected) {
            Assert-That ($null -eq $rule[$key] -or $false -eq $rule[$key]) "$key is off, found '$($rule[$key])'"
            $rule[$key] = $null
        }
        Assert-Equal (Get-StandInSnapshot) $right 'the rest is as it was'
    }
}

Test-Case 'repair: conditions that are left are told, but not those of the rollout; one that no mail can meet goes' {
    $tenant = Add-Installed
    $rule = $tenant.Rules[0]
    $rule['SubjectContainsWords'] = [System.Collections.ArrayList]@('x')
    $rule['ExceptIfMessageSizeOver'] = '1 KB (1,024 bytes)'
    $rule['RouteMessageOutboundRequireTls'] = $true
    $rule['ExceptIfFromScope'] = 'InOrganization'
    $rule['HeaderMatchesMessageHeader'] = 'x-contoso-LOOP'
    $rule['HeaderMatchesPatterns'] = [System.Collections.ArrayList]@('.')
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-TransportRule -ExceptIfFromScope -HeaderMatchesMessageHeader -HeaderMatchesPatterns -Identity') 'one change'
    $told = @($run.Results | Where-Object { $_.Name -eq 'Route to Gatepost' })[0]
    Assert-That ($told.Message -match 'also holds RouteMessageOutboundRequireTls, SubjectContainsWords, left as it is') "they are told, found '$($told.Message)'"
    Clear-StandInCall
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @() 'then nothing'
    $told = @($run.Results | Where-Object { $_.Name -eq 'Route to Gatepost' })[0]
    Assert-That ($told.Action -eq 'Unchanged' -and $told.Message -match 'SubjectContainsWords') "they are told again, found '$($told.Message)'"
}

Test-Case 'repair: an exception for the scope that the rule asks for leaves nothing, and goes, by Install as well; one for another scope stays' {
    foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector') {
        $tenant = Add-Installed
        $rule = $tenant.Rules[0]
        $rule['SentToScope'] = 'NotInOrganization'
        $rule['ExceptIfSentToScope'] = 'InOrganization'
        $null = Invoke-Good $script
        Assert-Equal (Get-Change) @() "$script leaves another scope"
        $rule['ExceptIfSentToScope'] = 'notInOrganization'
        $null = Invoke-Good $script
        Assert-Equal (Get-Change) @('Set-TransportRule -ExceptIfSentToScope -Identity') "$script`: one change"
        Assert-Equal @($rule['SentToScope'], [string]$rule['ExceptIfSentToScope']) @('NotInOrganization', '') "$script`: the exception is off, the scope stays"
        Reset-StandIn
    }
}

Test-Case 'repair: an action is taken off with what means nothing without it, and a secret value in it is not shown' {
    $tenant = Add-Installed
    $rule = $tenant.Rules[1]
    $rule['SetHeaderName'] = 'X-Other'
    $rule['SetHeaderValue'] = $secretValue
    $rule['PrependSubject'] = "[$secretValue]"
    $run = Invoke-Good 'Repair-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-TransportRule -Identity -PrependSubject -SetHeaderName -SetHeaderValue') 'one change'
    $told = @($run.Results | Where-Object { $_.Name -eq 'Back from Gatepost' })[0].Changes -join '; '
    Assert-Equal $told "PrependSubject: set -> nothing; SetHeaderName: set -> nothing; SetHeaderValue: set -> nothing" 'what is told'
}

Test-Case 'repair: a loop value of another time in a condition is not shown, as it is or in other case' {
    $tenant = Add-Installed
    $tenant.Rules[1]['ExceptIfHeaderContainsMessageHeader'] = 'X-Contoso-Loop'
    $tenant.Rules[1]['ExceptIfHeaderContainsWords'] = [System.Collections.ArrayList]@($oldLoop, $loopValue.ToUpperInvariant())
    $tenant.Rules[1]['PrependSubject'] = $secretValue.Substring(2)
    foreach ($preview in $true, $false) {
        $run = Invoke-Good 'Repair-GatepostConnector' -Preview:$preview
        Assert-That ($run.Text -match 'ExceptIfHeaderContainsWords' -and $run.Text -notmatch "$oldLoop|$loopValue|$($secretValue.Substring(2))") 'no value is shown'
    }
    Assert-Equal $tenant.Rules[1]['ExceptIfHeaderContainsWords'] $null 'it is gone'
}

Test-Case 'repair: a rule whose ExpiryDate has passed acts again, a date that may be meant is left' {
    $tenant = Add-Installed
    $days = { param($count) [datetime]::UtcNow.AddDays($count) }
    foreach ($row in @(
            @(0, 'ExpiryDate', -1, $true), @(1, 'ExpiryDate', -1, $true), @(0, 'ExpiryDate', 1, $false), @(1, 'ExpiryDate', 1, $false),
            @(0, 'ActivationDate', -1, $false), @(1, 'ActivationDate', -1, $false), @(0, 'ActivationDate', 1, $false), @(1, 'ActivationDate', 1, $true))) {
        $place, $property, $ahead, $goes = $row
        $rule = $tenant.Rules[$place]
        # Both kinds of time, and as text: the zone of this run is far from UTC.
        $written = & $days $ahead
        foreach ($value in $written, $written.ToLocalTime(), [datetime]::SpecifyKind($written, [System.DateTimeKind]::Unspecified), $written.ToString('yyyy-MM-ddTHH:mm:ss', [System.Globalization.CultureInfo]::InvariantCulture)) {
            $rule[$property] = $value
            Clear-StandInCall
            $run = Invoke-Good 'Repair-GatepostConnector'
            $what = "$property of rule $place, $ahead days ahead, as $($value.GetType().Name)"
            $change = @()
            if ($goes) { $change = @("Set-TransportRule -$property -Identity") }
            Assert-Equal (Get-Change) $change $what
            if (-not $goes -and $ahead -gt 0) { Assert-That (@($run.Results | Where-Object { $_.Message -match "also holds $property, left as it is" }).Count -eq 1) "$what is told" }
            $rule[$property] = $null
        }
    }
}
