# Set-GatepostRollout, Update-GatepostSecret: stages and what they refuse.

function Get-Route { param($Tenant) @($Tenant.Rules | Where-Object { $_.Name -eq 'Route to Gatepost' })[0] }
function Get-Stage { param($Tenant) $rule = Get-Route $Tenant; "$($rule.State) $($rule.Mode) $(@($rule.FromMemberOf) -join ',')" }

Test-Case 'rollout: Audit, Pilot, Everyone, Stop, each once; a second run of a stage changes nothing' {
    $null = Add-Ready
    $tenant = Get-StandInTenant
    $ends = [ordered]@{ Audit = 'Enabled Audit pilot@contoso.com'; Pilot = 'Enabled Enforce pilot@contoso.com'; Everyone = 'Enabled Enforce '; Stop = 'Disabled Enforce ' }
    foreach ($stage in $ends.Keys) {
        $before = Get-StandInSnapshot
        Clear-StandInCall
        $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage } -Preview
        Assert-Equal (Get-Change) @() "$stage`: -WhatIf calls nothing that changes the tenant"
        Assert-Equal (Get-StandInSnapshot) $before "$stage`: -WhatIf leaves the tenant"
        Assert-Equal (Get-Action $run) @('Route to Gatepost: WouldUpdate') "$stage`: -WhatIf says what it would"
        $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage }
        Assert-Equal (Get-Stage $tenant) $ends[$stage] "the rule in stage $stage"
        Assert-Equal (Get-Action $run) @('Route to Gatepost: Updated') "the result of stage $stage"
        Clear-StandInCall
        $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage }
        Assert-Equal (Get-Change) @() "$stage`: a second run changes nothing"
        Assert-Equal (Get-Action $run) @('Route to Gatepost: Unchanged') "$stage`: a second run says so"
    }
}

Test-Case 'rollout: the rule is bound to the group before it is enabled' {
    $null = Add-Ready
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property FromMemberOf -Value $null
    $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Pilot'; PilotGroup = 'second@contoso.com' }
    Assert-Equal (Get-RightChange) @('Set-TransportRule', 'Enable-TransportRule') 'the order'
    Assert-Equal (Get-Stage (Get-StandInTenant)) 'Enabled Enforce second@contoso.com' 'the rule'
    $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Audit' }
    Assert-Equal (Get-Stage (Get-StandInTenant)) 'Enabled Audit pilot@contoso.com' 'back to Audit, for the group of the kit'
}

Test-Case 'rollout: Pilot without a group, a group that is not there, a rule that is not there' {
    $null = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ PilotGroup = '' }
    Clear-StandInCall
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property IsValidated -Value $true
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Pilot'; PilotGroup = '' }
    Assert-That ($run.Failed -match '-PilotGroup') "a refusal, found '$($run.Failed)'"
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Pilot'; PilotGroup = 'nobody@contoso.com' }
    Assert-That ($run.Failed -match 'nobody@contoso\.com.* is no group') "a refusal, found '$($run.Failed)'"
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Pilot'; PilotGroup = 'nobody@contoso.com' } -Preview
    Assert-That ($run.Failed -match 'is no group') "-WhatIf says so too, found '$($run.Failed)'"
    Assert-Equal (Get-RightChange) @() 'nothing was changed'
    Assert-Equal (Get-Stage (Get-StandInTenant)) 'Disabled Audit ' 'the rule'
    (Get-StandInTenant).Rules.Clear()
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
    Assert-That ($run.Failed -match 'Route to Gatepost') "a refusal, found '$($run.Failed)'"
}

Test-Case 'rollout: a routing rule that begins later may be meant, and is told' {
    Add-Ready
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property ActivationDate -Value ([datetime]::UtcNow.AddDays(1))
    foreach ($stage in 'Audit', 'Pilot') {
        $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage }
        Assert-That (($run.Warnings -join ' ') -match 'begins at its ActivationDate') "$stage, found $($run.Warnings)"
    }
}

Test-Case 'rollout: mail of users goes by no connector that was never validated, unless it is forced; a stage left out is told' {
    Add-Ready
    $tenant = Get-StandInTenant
    $tenant.Outbound[0]['IsValidated'] = $false
    foreach ($stage in 'Pilot', 'Everyone') {
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = $stage }
        Assert-That ($run.Failed -match 'Confirm-GatepostConnector') "$stage is refused, found '$($run.Failed)'"
    }
    Assert-Equal (Get-Change) @() 'nothing was changed'
    $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Audit' }
    Assert-That (($run.Warnings -join ' ') -match 'is not validated') 'Audit sends nothing, and warns'
    $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Everyone'; Force = $true }
    Assert-That (($run.Warnings -join ' ') -match 'is not validated.* from the stage Audit to Everyone\. The stage Pilot comes between') "both are told, found $($run.Warnings)"
    $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Pilot'; Force = $true }
    Assert-That (($run.Warnings -join ' ') -notmatch 'comes between') "back to Pilot, found $($run.Warnings)"
    Add-Ready
    $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Pilot' }
    Assert-That (($run.Warnings -join ' ') -match 'from the stage Stop to Pilot\. The stage Audit comes between') "straight to Pilot, found $($run.Warnings)"
}

Test-Case 'rollout: of the stages before nothing is said but which one the rule comes from' {
    foreach ($way in @(@('Audit', 'Stop', 'Pilot'), @('Audit', 'Stop', 'Everyone'), @('Pilot', 'Audit', 'Everyone'), @('Pilot', 'Stop', 'Pilot'), @('Audit', 'Pilot', 'Everyone'))) {
        Add-Ready
        foreach ($stage in $way) { $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage } }
        $told = $run.Warnings -join ' '
        Assert-That ($told -notmatch 'never|not in the stage') "$way`: nothing that is not known, found '$told'"
        $wanted = ''
        if ($way[1] -ne 'Pilot' -and $way[0] -ne $way[2]) { $wanted = "from the stage $($way[1]) to $($way[2])" }
        Assert-Equal ([regex]::Match($told, 'from the stage \w+ to \w+').Value) $wanted "$way`: what is told"
    }
}

# What would lose mail or let it go round is refused, and nothing is changed.
foreach ($bad in @(
        @('Inbound', 'From Gatepost', 'Enabled', $false, 'inbound connector'), @('Outbound', 'To Gatepost', 'Enabled', $false, 'outbound connector'), @('Outbound', 'To Gatepost', 'TestMode', $true, 'test mode'),
        @('Rules', 'Back from Gatepost', 'State', 'Disabled', 'Back from Gatepost'), @('Rules', 'Back from Gatepost', 'Mode', 'Audit', 'Back from Gatepost'),
        @('Rules', 'Route to Gatepost', 'ExceptIfHeaderContainsWords', $null, 'exception'), @('Rules', 'Route to Gatepost', 'FromScope', $null, 'own senders'),
        @('Rules', 'Route to Gatepost', 'ExceptIfFromScope', 'InOrganization', 'leaves out by ExceptIfFromScope all that it takes'),
        @('Rules', 'Route to Gatepost', 'ExceptIfHeaderContainsWords', @('another'), 'no loop value in common'), @('Rules', 'Route to Gatepost', 'DeleteMessage', $true, 'DeleteMessage'),
        @('Rules', 'Back from Gatepost', 'RedirectMessageTo', @('x@contoso.com'), 'RedirectMessageTo'), @('Rules', 'Back from Gatepost', 'RejectMessageEnhancedStatusCode', '5.7.1', 'RejectMessageEnhancedStatusCode'), @('Rules', 'Back from Gatepost', 'RouteMessageOutboundConnector', 'Other', 'leads mail that has come back'), @('Rules', 'Back from Gatepost', 'ExpiryDate', [datetime]::UtcNow.AddDays(-1), 'has ended'),
        @('Rules', 'Route to Gatepost', 'ExpiryDate', [datetime]::UtcNow.AddDays(-1), 'has ended'), @('Rules', 'Back from Gatepost', 'ActivationDate', [datetime]::UtcNow.AddDays(1), 'has not begun'), @('Rules', 'Back from Gatepost', 'HeaderContainsMessageHeader', 'X-Else', 'is not for X-Contoso-Loop'),
        @('Rules', 'Back from Gatepost', 'From', @('nobody@contoso.com'), 'does not take all mail that comes back \(From\)'), @('Rules', 'Back from Gatepost', 'SCLOver', 0, 'does not take all mail that comes back \(SCLOver\)'),
        @('Rules', 'Back from Gatepost', 'ExceptIfFromScope', 'InOrganization', 'does not take all mail that comes back \(ExceptIfFromScope\)'), @('Rules', 'Back from Gatepost', 'AttachmentIsUnsupported', $true, 'does not take all mail that comes back'),
        @('Outbound', 'To Gatepost', 'TlsSettings', 'EncryptionOnly', 'TlsSettings'), @('Rules', 'Route to Gatepost', 'RouteMessageOutboundConnector', 'Other', 'does not lead'))) {
    Test-Case "rollout: refused while $($bad[2]) of '$($bad[1])' is '$($bad[3])', but Stop works" -With $bad {
        param($bad)
        Add-Ready
        Set-StandInProperty -Kind $bad[0] -Name $bad[1] -Property $bad[2] -Value $bad[3]
        foreach ($stage in 'Audit', 'Pilot', 'Everyone') {
            $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = $stage }
            Assert-That ($run.Failed -match $bad[4]) "$stage is refused and says why, found '$($run.Failed)'"
        }
        Assert-Equal (Get-Change) @() 'nothing was changed'
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
        $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
        Assert-Equal (Get-Route (Get-StandInTenant)).State 'Disabled' 'Stop works'
    }
}

Test-Case 'rollout: refused while an exception of the routing rule is for the scope that it asks for' {
    foreach ($row in @(@('NotInOrganization', 'NotInOrganization', $true), @('NotInOrganization', 'InOrganization', $false), @($null, $null, $false))) {
        Add-Ready
        $rule = (Get-StandInTenant).Rules[0]
        $rule['SentToScope'] = $row[0]
        $rule['ExceptIfSentToScope'] = $row[1]
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Audit' }
        Assert-Equal ($run.Failed -match 'leaves out by ExceptIfSentToScope all that it takes') $row[2] "scope '$($row[0])', exception '$($row[1])', found '$($run.Failed)'"
        if (-not $row[2]) { Assert-Equal $run.Failed '' 'it goes on' }
        Reset-StandIn
    }
}

# A rule before ours by which mail that has come back would go round, or that keeps mail from ours; what the rollout does about it.
foreach ($row in @(
        @('takes it off', @{ RemoveHeader = 'x-contoso-loop' }, "'Strip' \(priority 0\) takes X-Contoso-Loop off before .* until a hop limit", ''),
        @('sets another value', @{ SetHeaderName = 'x-contoso-loop'; SetHeaderValue = 'x' }, "'Strip' \(priority 0\) sets another X-Contoso-Loop before .* until a hop limit", ''),
        @('sets our value', @{ SetHeaderName = 'X-Contoso-Loop'; SetHeaderValue = $loopValue }, '', 'sets X-Contoso-Loop before .* never reaches Gatepost'),
        @('takes it off and stops', @{ RemoveHeader = 'X-Contoso-Loop'; StopRuleProcessing = $true }, '', ''), @('takes it off, of mail from outside', @{ RemoveHeader = 'X-Contoso-Loop'; FromScope = 'NotInOrganization' }, '', ''),
        @('would take it off', @{ RemoveHeader = 'X-Contoso-Loop'; Mode = 'Audit' }, '', ''), @('takes it off, disabled', @{ RemoveHeader = 'X-Contoso-Loop'; Enabled = $false }, '', ''),
        @('took it off', @{ RemoveHeader = 'X-Contoso-Loop'; ExpiryDate = [datetime]::UtcNow.AddDays(-1) }, '', ''), @('takes another off', @{ RemoveHeader = 'X-Other' }, '', ''))) {
    Test-Case "rollout: a rule before ours, by what it does with the loop header: $($row[0])" -With $row {
        param($row)
        foreach ($stage in 'Audit', 'Pilot', 'Everyone') {
            Add-Ready
            Set-StandInConnection -TenantId $kit.TenantId
            $with = $row[1]
            New-TransportRule -Name 'Strip' -Priority 0 @with -ErrorAction Stop | Out-Null
            Clear-StandInCall
            $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = $stage; Force = $true }
            if ($row[2]) {
                Assert-That ($run.Failed -match $row[2]) "$stage is refused and says why, found '$($run.Failed)'"
                Assert-Equal (Get-Change) @() 'nothing was changed'
                Assert-That ($run.Text -notmatch $loopValue) 'no value is shown'
                Set-StandInProperty -Kind Rules -Name 'Strip' -Property Priority -Value 2
                $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage }
            } else { Assert-Equal $run.Failed '' "$stage goes on" }
            Assert-Equal (($run.Warnings -join ' ') -match 'Strip') ($row[3] -ne '') "$stage`: a warning, found $($run.Warnings)"
            if ($row[3]) { Assert-That (($run.Warnings -join ' ') -match $row[3]) "$stage`: what it says, found $($run.Warnings)" }
            Reset-StandIn
        }
    }
}

Test-Case 'rollout: Stop stops a rule of our name whose comment somebody changed, by what it does; else it names the line that stops it' {
    # Outbound connector, header; whether it is ours.
    foreach ($row in @(@('To Gatepost', 'X-Contoso-Gate', $true), @('To Gatepost', 'X-Other', $true), @('Other', 'x-contoso-gate', $true), @('Other', 'X-Other', $false), @($null, $null, $false))) {
        Add-Ready
        $rule = (Get-StandInTenant).Rules[0]
        foreach ($pair in @(@('State', 'Enabled'), @('Mode', 'Enforce'), @('Comments', 'owned by Bob'), @('RouteMessageOutboundConnector', $row[0]), @('SetHeaderName', $row[1]))) { $rule[$pair[0]] = $pair[1] }
        $what = "connector '$($row[0])', header '$($row[1])'"
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Stop' } -Preview
        Assert-Equal @([bool]$run.Failed, (Get-Change)) @((-not $row[2]), '') "$what`: -WhatIf"
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
        if ($row[2]) {
            Assert-Equal @($run.Failed, $rule.State) @('', 'Disabled') "$what`: stopped"
            Assert-That (($run.Warnings -join ' ') -match 'does what Gatepost''s does') "$what`: a warning, found $($run.Warnings)"
        } else {
            Assert-Equal @($rule.State, (Get-Change)) @('Enabled', '') "$what`: not touched"
            Assert-That ($run.Failed -notmatch '-Force') "$what`: not by -Force, found '$($run.Failed)'"
            # The line that it names.
            Set-StandInConnection -TenantId $kit.TenantId
            $null = & ([scriptblock]::Create([regex]::Match($run.Failed, 'Disable-TransportRule .*$').Value + ' -Confirm:$false -ErrorAction Stop'))
            Assert-Equal $rule.State 'Disabled' "$what`: the line stops it"
        }
        # The other stages stay strict.
        $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Audit' }
        Assert-That ($run.Failed -match 'is not Gatepost''s') "$what`: Audit is refused, found '$($run.Failed)'"
        Reset-StandIn
    }
}

Test-Case 'rollout: Stop without a rule of our name names the lines that stop what sends mail to Gatepost' {
    Add-Ready
    Set-StandInConnection -TenantId $kit.TenantId
    Enable-TransportRule -Identity 'Route to Gatepost' -Mode Enforce -Confirm:$false -ErrorAction Stop
    # Curly quotes end a literal as well.
    $name = "Bob's$([char]0x2019); throw $([char]0x2018)rule"
    Set-TransportRule -Identity 'Route to Gatepost' -Name $name -Confirm:$false -ErrorAction Stop
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
    Assert-That ($run.Failed -match "what stops them: Disable-TransportRule -Identity 'Bob''s") "the line, found '$($run.Failed)'"
    $null = & ([scriptblock]::Create([regex]::Match($run.Failed, 'Disable-TransportRule .*$').Value + ' -Confirm:$false -ErrorAction Stop'))
    $run = Invoke-Script 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
    Assert-That ($run.Failed -match 'Install-GatepostConnector' -and $run.Failed -notmatch 'Disable') "stopped, nothing to name, found '$($run.Failed)'"
}

Test-Case 'rollout: Stop names the lines that stop rules of other names as well, once ours is stopped' {
    Add-Ready
    Set-StandInConnection -TenantId $kit.TenantId
    $tenant = Get-StandInTenant
    New-OutboundConnector -Name 'Other' -ErrorAction Stop | Out-Null
    # What is in force and leads to our connector or sets our header, by name.
    foreach ($row in @(
            @("Bob's", @{ RouteMessageOutboundConnector = 'To Gatepost' }), @('Header', @{ RouteMessageOutboundConnector = 'Other'; SetHeaderName = 'x-contoso-gate'; SetHeaderValue = 'x' }),
            @('Audit', @{ RouteMessageOutboundConnector = 'To Gatepost'; Mode = 'Audit' }), @('Off', @{ RouteMessageOutboundConnector = 'To Gatepost'; Enabled = $false }),
            @('Ended', @{ RouteMessageOutboundConnector = 'To Gatepost'; ExpiryDate = [datetime]::UtcNow.AddDays(-1) }), @('Else', @{ RouteMessageOutboundConnector = 'Other' }))) {
        $with = $row[1]
        New-TransportRule -Name $row[0] @with -ErrorAction Stop | Out-Null
    }
    Set-TransportRule -Identity 'Back from Gatepost' -RouteMessageOutboundConnector 'To Gatepost' -Confirm:$false -ErrorAction Stop
    Enable-TransportRule -Identity 'Route to Gatepost' -Mode Enforce -Confirm:$false -ErrorAction Stop
    Clear-StandInCall
    foreach ($again in $false, $true) {
        $run = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
        Assert-Equal $tenant.Rules[0].State 'Disabled' 'ours is stopped'
        Assert-Equal (Get-Change) @('Disable-TransportRule -Identity') 'it alone'
        $lines = @([regex]::Match(($run.Warnings -join ' '), 'what stops them: (.*)$').Groups[1].Value -split '; ')
        Assert-Equal $lines @("Set-TransportRule -Identity 'Back from Gatepost' -RouteMessageOutboundConnector `$null", "Disable-TransportRule -Identity 'Bob''s'", "Disable-TransportRule -Identity 'Header'") "the lines, again $again, found $($run.Warnings)"
    }
    Set-StandInConnection -TenantId $kit.TenantId
    foreach ($line in $lines) { $null = & ([scriptblock]::Create("$line -Confirm:`$false -ErrorAction Stop")) }
    Assert-Equal (Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Stop' }).Warnings @() 'nothing is left'
}

# The values of a rule as they lie in the tenant.
function Get-Word { param($Tenant) $route = Get-Route $Tenant; $back = @($Tenant.Rules | Where-Object { $_.Name -eq 'Back from Gatepost' })[0]; "set $($route.SetHeaderValue), except $(@($route.ExceptIfHeaderContainsWords | Sort-Object) -join '+'), back $(@($back.HeaderContainsWords | Sort-Object) -join '+')" }

Test-Case 'secret: Both sets the new value and keeps both words, NewOnly leaves the new ones; each repeated changes nothing' {
    Add-Ready
    $tenant = Get-StandInTenant
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p' -OldSecret $secretValue -OldLoop $loopValue
    $before = Get-StandInSnapshot
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder -Preview
    Assert-Equal (Get-Change) @() '-WhatIf calls nothing that changes the tenant'
    Assert-Equal (Get-StandInSnapshot) $before '-WhatIf leaves the tenant'
    Assert-Equal (Get-Action $run | Sort-Object) @('Back from Gatepost: WouldUpdate', 'Route to Gatepost: WouldUpdate') '-WhatIf says what it would'
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $both = @('NewL00p', $loopValue | Sort-Object) -join '+'
    Assert-Equal (Get-Word $tenant) "set NewS3cret, except $both, back $both" 'both words, the new value'
    Assert-That ($run.Text -notmatch "NewS3cret|NewL00p|$secretValue|$loopValue") 'no value is shown'
    Clear-StandInCall
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
    $null = Invoke-Good 'Repair-GatepostConnector' -Folder $folder
    $null = Invoke-Good 'Install-GatepostConnector' -Folder $folder
    Assert-Equal (Get-Change) @() 'repair and install see no drift in between'
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p'
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal (Get-Word $tenant) 'set NewS3cret, except NewL00p, back NewL00p' 'the new words alone'
    Clear-StandInCall
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
}

Test-Case 'secret: in turns as the help has it; NewOnly with the file of the step before is refused, and the comment forgets it then' {
    Add-Ready
    $tenant = Get-StandInTenant
    $mark = $tenant.Rules[1]['Comments']
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop $loopValue -OldSecret $secretValue -OldLoop 'NewL00p'
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $both = @('NewL00p', $loopValue | Sort-Object) -join '+'
    Assert-Equal (Get-Word $tenant) "set NewS3cret, except $both, back $both" 'both words'
    Assert-That ($run.Results[1].Message -match 'before Gatepost writes the new loop value') "the next step, found '$($run.Results[1].Message)'"
    Assert-That ($tenant.Rules[1]['Comments'] -cmatch ('^' + [regex]::Escape($mark) + ' Rotation begun with loop value #[0-9a-f]{8}\.$')) "the comment, found '$($tenant.Rules[1]['Comments'])'"
    Clear-StandInCall
    foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector') { $null = Invoke-Good $script -Folder $folder }
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $run = Invoke-Script 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-That ($run.Failed -match 'render again') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'nothing was changed'
    # Step 3, and Both once more with its file: what was in use at the beginning is remembered.
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p' -OldSecret $secretValue -OldLoop $loopValue
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    Assert-Equal (Get-Change) @() 'nothing was changed'
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal (Get-Word $tenant) 'set NewS3cret, except NewL00p, back NewL00p' 'the new words alone'
    Assert-Equal $tenant.Rules[1]['Comments'] $mark 'the comment has forgotten'
    # The next rotation, back to a value of old.
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p' -OldLoop $loopValue
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop $loopValue -OldLoop 'NewL00p'
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal (Get-Word $tenant) "set NewS3cret, except $loopValue, back $loopValue" 'the next one'
}

# A rotation is begun with -Stage Both, as step 2 of the help has it; gives back the folder.
function Start-Rotation {
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop $loopValue -OldSecret $secretValue -OldLoop 'NewL00p'
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $folder
}

Test-Case 'secret: a rotation that is given up as the help has it leaves nothing, and later the secret alone is rotated' {
    Add-Ready
    $tenant = Get-StandInTenant
    $before = Get-StandInSnapshot
    $folder = Start-Rotation
    # Both headers back: the routing rule sends the old secret again, both loop values are known.
    Set-KitSecret -Folder $folder -OldSecret 'NewS3cret' -OldLoop 'NewL00p'
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $both = @('NewL00p', $loopValue | Sort-Object) -join '+'
    Assert-Equal (Get-Word $tenant) "set $secretValue, except $both, back $both" 'the old secret, both words'
    Assert-That ($run.Results[1].Message -match 'given up.*Repair' -and $run.Results[1].Message -notmatch 'writes the new') "the next step of this way, found '$($run.Results[1].Message)'"
    # The old configuration: NewOnly cannot tell it from a file of old, Repair takes the new value out, and the remark.
    Set-KitSecret -Folder $folder
    $run = Invoke-Script 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-That ($run.Failed -match 'given up, Repair-GatepostConnector') "a refusal that names Repair, found '$($run.Failed)'"
    $run = Invoke-Good 'Repair-GatepostConnector' -Folder $folder -Preview
    Assert-That (($run.Results | ForEach-Object { $_.Changes }) -contains 'Comments: no longer that a rotation is under way') '-WhatIf says so'
    $null = Invoke-Good 'Repair-GatepostConnector' -Folder $folder
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant is as it was'
    Clear-StandInCall
    foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector') { $null = Invoke-Good $script -Folder $folder }
    $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal (Get-Change) @() 'and nothing is left to do'
}

Test-Case 'secret: a remark that was left behind with one loop value holds nothing up, and goes' {
    foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector', 'Update-GatepostSecret') {
        Add-Ready
        $rule = (Get-StandInTenant).Rules[1]
        $plain = $rule['Comments']
        $folder = Start-Rotation
        $remark = $rule['Comments']
        # The words were taken out by the lines of diff, which leave the comment.
        Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property HeaderContainsWords -Value @($loopValue)
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property ExceptIfHeaderContainsWords -Value @($loopValue)
        # The secret alone is rotated.
        Set-KitSecret -Folder $folder -Secret 'NewS3cret' -OldSecret $secretValue
        $null = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
        Assert-Equal $rule['Comments'] $remark 'the remark is left'
        Clear-StandInCall
        $with = @{}
        if ($script -eq 'Update-GatepostSecret') { $with = @{ Stage = 'NewOnly' } }
        $run = Invoke-Good $script -With $with -Folder $folder
        Assert-Equal $rule['Comments'] $plain "$script takes it off"
        Assert-That (@(Get-Change).Count -eq 1) "$script`: one change, found $(Get-Change)"
        Reset-StandIn
    }
}

Test-Case 'secret: while another loop value stands in one of the lists the file of before is refused, and Repair leaves the remark' {
    foreach ($rule in @(@('Back from Gatepost', 'HeaderContainsWords'), @('Route to Gatepost', 'ExceptIfHeaderContainsWords'))) {
        Add-Ready
        $folder = Start-Rotation
        Set-StandInProperty -Kind Rules -Name $rule[0] -Property $rule[1] -Value @($loopValue)
        $before = Get-StandInSnapshot
        $run = Invoke-Script 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
        Assert-That ($run.Failed -match 'render again') "one value in '$($rule[0])', found '$($run.Failed)'"
        foreach ($script in 'Repair-GatepostConnector', 'Install-GatepostConnector') { $null = Invoke-Good $script -Folder $folder }
        Assert-Equal (Get-StandInSnapshot) $before 'the tenant, and its comment'
        Reset-StandIn
    }
}

Test-Case 'secret: where the secret alone is rotated nothing is said of a loop value' {
    Add-Ready
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -OldSecret $secretValue
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    Assert-Equal @($run.Results[1].Action, $run.Results[1].Message) @('Updated', 'takes effect within minutes') 'the routing rule'
}

Test-Case 'secret: the remark of a rotation is told as put on, and as taken off' {
    Add-Ready
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop $loopValue -OldSecret $secretValue -OldLoop 'NewL00p'
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    Assert-Equal @($run.Results[0].Changes | Where-Object { $_ -match '^Comments' }) @('Comments: that a rotation is under way') 'Both'
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p' -OldSecret $secretValue -OldLoop $loopValue
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-Equal @($run.Results[0].Changes | Where-Object { $_ -match '^Comments' }) @('Comments: no longer that a rotation is under way') 'NewOnly'
}

Test-Case 'secret: a file without a previous value is told: nothing is being rotated' {
    Add-Ready
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' }
    Assert-Equal (Get-Change) @() 'nothing was changed'
    Assert-That (($run.Warnings -join ' ') -match 'no previous value') "a warning, found $($run.Warnings)"
}

Test-Case 'secret: NewOnly before Both is refused; words that the file does not have stay in Both, with a warning' {
    Add-Ready
    $tenant = Get-StandInTenant
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret' -Loop 'NewL00p'
    $run = Invoke-Script 'Update-GatepostSecret' -With @{ Stage = 'NewOnly' } -Folder $folder
    Assert-That ($run.Failed -match '-Stage Both') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'nothing was changed'
    $run = Invoke-Good 'Update-GatepostSecret' -With @{ Stage = 'Both' } -Folder $folder
    $both = @('NewL00p', $loopValue | Sort-Object) -join '+'
    Assert-Equal (Get-Word $tenant) "set NewS3cret, except $both, back $both" 'mail that is on its way with the old word still ends'
    Assert-That ($run.Warnings.Count -gt 0 -and $run.Text -notmatch $loopValue) 'a warning without the word'
}

# Script, parameters, the first call that changes the tenant.
$firstChanges = @(
    @('Set-GatepostRollout', @{ Stage = 'Everyone' }, 'Set-TransportRule'),
    @('Update-GatepostSecret', @{ Stage = 'Both' }, 'Set-TransportRule'),
    @('Set-GatepostArcSealer', @{ Domain = 'gatepost.example' }, 'Set-ArcConfig'),
    @('Set-GatepostEnhancedFiltering', @{ Mode = 'SkipLastIP' }, 'Set-InboundConnector')
)
foreach ($row in $firstChanges) {
    Test-Case "state before: $($row[0]) keeps it, before its first change and only then" -With $row {
        param($row)
        Add-Ready
        $folder = New-Kit
        if ($row[0] -eq 'Update-GatepostSecret') { Set-KitSecret -Folder $folder -Secret 'NewS3cret0123456789' -Loop 'NewL00p0123456789' -OldSecret $secretValue -OldLoop $loopValue }
        $run = Invoke-Good $row[0] -With $row[1] -Folder $folder -Preview
        Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() '-WhatIf exports nothing'
        Clear-StandInCall
        $run = Invoke-Good $row[0] -With $row[1] -Folder $folder
        $kept = @(Get-ChildItem -LiteralPath $run.Folder)
        Assert-Equal $kept.Count 1 'one folder'
        Assert-That ($kept[0].Name -like 'state-before-*') "its name, found $($kept[0].Name)"
        Assert-Equal ([string]$kept[0].UnixFileMode) 'UserExecute, UserWrite, UserRead' 'for its owner alone'
        $rules = [System.IO.File]::ReadAllText([System.IO.Path]::Combine($kept[0].FullName, 'TransportRule.json')) | ConvertFrom-Json
        Assert-Equal @(@($rules)[0].SetHeaderValue, @($rules)[0].State) @($secretValue, 'Disabled') 'what was there before'
        $calls = @(Get-StandInCall | ForEach-Object { $_.Cmdlet })
        Assert-That ([array]::IndexOf($calls, 'Export-TransportRuleCollection') -ge 0 -and [array]::IndexOf($calls, 'Export-TransportRuleCollection') -lt [array]::IndexOf($calls, $row[2])) "the export comes first, found $calls"
        $run = Invoke-Good $row[0] -With $row[1] -Folder $folder
        Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() 'nothing to change, nothing to export'
        if ($row[0] -eq 'Set-GatepostRollout') {
            Clear-StandInCall
            $run = Invoke-Good $row[0] -With @{ Stage = 'Stop' } -Folder $folder
            Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() 'the emergency stop waits for no export'
            Assert-Equal @(Get-StandInCall | Where-Object { $_.Cmdlet -notmatch 'Connect' } | ForEach-Object { $_.Cmdlet }) @('Get-TransportRule', 'Disable-TransportRule') 'and reads no more than it needs'
        }
    }
}
